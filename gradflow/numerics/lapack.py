"""Matrix decompositions that cannot deadlock under `jax.vmap` on a CPU, and how to find others.

jaxlib (0.10) distributes a batch of decompositions over the CPU's thread pool, from which it is
itself run, and waits there. Two batches at once, such as the orthogonal matrices of two gates for
several seeds, take all threads of a small machine and wait for each other for ever. One
decomposition at a time waits for nobody: so under `jax.vmap` these are executed sequentially.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap
from jaxtyping import Array, Float

LAPACK_PRIMITIVES = frozenset(
    """cholesky eig eigh geqp3 geqrf hessenberg householder_product lu qr schur svd
    triangular_solve tridiagonal tridiagonal_solve""".split()
)
"""Names of the JAX primitives that LAPACK computes on a CPU."""


def _one_at_a_time(function: Callable[..., Any]) -> Callable[..., Any]:
    sequential = sequential_vmap(function)

    @jax.jit  # else each call outside of a compiled program would lower it anew, in 0.1 s
    def call(matrix: Array) -> Any:
        return (sequential if jax.default_backend() == "cpu" else function)(matrix)

    return call


_cholesky = _one_at_a_time(lambda matrix: jnp.linalg.cholesky(matrix))
_eigh = _one_at_a_time(lambda matrix: tuple(jnp.linalg.eigh(matrix)))
_qr = _one_at_a_time(lambda matrix: tuple(jnp.linalg.qr(matrix)))
_singular_values = _one_at_a_time(lambda matrix: jnp.linalg.svd(matrix, compute_uv=False))


def cholesky(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Computes `jnp.linalg.cholesky`: the lower factor, NaN if not positive definite."""
    return _cholesky(matrix)


def eigh(matrix: Float[Array, "n n"]) -> tuple[Float[Array, " n"], Float[Array, "n n"]]:
    """Computes `jnp.linalg.eigh`: ascending eigenvalues, and eigenvectors as columns."""
    return _eigh(matrix)


def qr(matrix: Float[Array, "n m"]) -> tuple[Float[Array, "n k"], Float[Array, "k m"]]:
    """Computes `jnp.linalg.qr`: the factors Q and R of the reduced decomposition."""
    return _qr(matrix)


def singular_values(matrix: Float[Array, "n m"]) -> Float[Array, " k"]:
    """Computes descending singular values, as `jnp.linalg.svd`; not differentiable."""
    return _singular_values(matrix)


def decomposed_shapes(jaxpr: Any) -> list[tuple[int, ...]]:
    """Finds the shapes of all arrays that a traced function passes to LAPACK."""
    return list(_lapack_operands(jaxpr))


def _lapack_operands(jaxpr: Any) -> Iterator[tuple[int, ...]]:
    for equation in jaxpr.eqns:
        if equation.primitive.name in LAPACK_PRIMITIVES:
            yield equation.invars[0].aval.shape
        for value in equation.params.values():
            for part in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(part, "jaxpr", part)
                if hasattr(inner, "eqns"):
                    yield from _lapack_operands(inner)


def has_batches(shapes: list[tuple[int, ...]]) -> bool:
    """Whether LAPACK gets more than one matrix at a time.

    jaxlib spreads a batch of decompositions over the CPU's thread pool, on which the devices
    themselves run, and waits there: two devices with a batch each wait for ever.
    """
    return any(math.prod(shape[:-2]) > 1 and min(shape[-2:]) > 1 for shape in shapes)
