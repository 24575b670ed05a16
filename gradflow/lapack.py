"""A detector of matrix decompositions inside a function."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax

PRIMITIVES = frozenset(
    (
        "cholesky",
        "eig",
        "eigh",
        "geqp3",
        "geqrf",
        "hessenberg",
        "householder_product",
        "lu",
        "qr",
        "schur",
        "svd",
        "triangular_solve",
        "tridiagonal",
        "tridiagonal_solve",
    )
)
"""Of the primitives of JAX that LAPACK computes on a CPU."""


def decomposed(function: Callable[..., Any], *arguments: Any) -> list[tuple[int, ...]]:
    """The shapes of all arrays that a function has LAPACK work on, batches in front.

    Args:
      function: What is traced, and not run.
      *arguments: Arrays, or their shapes as `jax.eval_shape` gives them.
    """
    return list(_shapes(jax.make_jaxpr(function)(*arguments).jaxpr))


def in_batches(shapes: Iterable[tuple[int, ...]]) -> bool:
    """Whether any of these is more than one matrix: two devices could then wait for each other."""
    return any(math.prod(shape[:-2]) > 1 and min(shape[-2:]) > 1 for shape in shapes)


def _shapes(jaxpr: Any) -> Iterator[tuple[int, ...]]:
    for equation in jaxpr.eqns:
        if equation.primitive.name in PRIMITIVES:
            yield equation.invars[0].aval.shape
        for value in equation.params.values():
            for part in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(part, "jaxpr", part)
                if hasattr(inner, "eqns"):
                    yield from _shapes(inner)
