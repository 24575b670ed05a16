"""The sweep back from T through all steps, with the norm of a block at each.

Most of the time goes into pulling the rows; so the norm should cost little beside it (`spectral`).
"""

from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gradflow.cell import Cell
from gradflow.flow.certificate import DIRECT, NormCertificate
from gradflow.flow.spectral import Tracked, spectral_norm, start_vectors
from gradflow.flow.steps import (
    Rows,
    Select,
    Steps,
    block,
    log_scaled,
    pull_scaled,
    rescale,
    trajectory,
    unit_rows,
)

Norm: TypeAlias = Literal["spectral", "frobenius"]


class Problem(NamedTuple):
    """A trajectory, and the block of its products whose norms are wanted."""

    steps: Steps
    norm: Norm
    source: Select
    target: Select


class Products(NamedTuple):
    """How far a sweep has come: 2^exponent · rows is the product so far."""

    rows: Rows
    exponent: Int[Array, ""]
    tracked: Tracked
    """Where the search for the next spectral norm starts."""


def prepare(cell: Cell, kind: tuple[Norm, str, str], arguments: tuple) -> Problem:
    """The problem of a kind (norm, source, target) and arguments (params, inputs, s_0, mask).

    Raises:
      ValueError: For an unknown block, or inputs that are not one sequence.
    """
    params, inputs, carry, mask = arguments
    norm, source, target = kind
    steps = trajectory(cell, params, inputs, carry=carry, mask=mask)
    return Problem(steps, norm, block(cell, source), block(cell, target))


def sweep_back(
    problem: Problem, products: Products | None = None
) -> tuple[Products, NormCertificate]:
    """Back through all steps: where that leads, and the log norm at each lag with its bounds.

    Args:
      problem: What is measured.
      products: Where the sweep has come to in the steps after these; by default there are none, and
        the norms start at lag 0.
    """

    def back(products: Products, index: Array) -> tuple[Products, NormCertificate]:
        rows, exponent = pull_scaled(problem.steps, index, products.rows, products.exponent)
        return _measured(problem, products._replace(rows=rows, exponent=exponent))

    order = jnp.arange(problem.steps.num_steps)[::-1]
    if products is not None:
        return jax.lax.scan(back, products, order)
    products, at_0 = _measured(problem, _at_the_end(problem))
    products, norms = jax.lax.scan(back, products, order)
    return products, jax.tree.map(lambda first, rest: jnp.append(first, rest), at_0, norms)


def _at_the_end(problem: Problem) -> Products:
    rows = unit_rows(problem.steps, problem.target)
    like = jax.tree.leaves(rows)[0]
    return Products(rows, jnp.zeros((), jnp.int32), start_vectors(len(like), like.dtype))


def _measured(problem: Problem, products: Products) -> tuple[Products, NormCertificate]:
    """The log norm of the block of a product, and where to look for the next one."""
    rows, exponent, tracked = products
    if problem.norm == "frobenius":
        log_norm = measure_plainly(problem, rows, exponent)
        return products, NormCertificate(log_norm, log_norm, jnp.asarray(DIRECT, jnp.int32))
    # The block may be far smaller than the rest of the carry, and its squares smaller still.
    matrix, exponent = rescale(jax.vmap(problem.source)(rows), exponent)
    norm, tracked = spectral_norm(matrix, tracked)
    lower, upper = log_scaled(norm.lower, exponent), log_scaled(norm.upper, exponent)
    return products._replace(tracked=tracked), NormCertificate(lower, upper, norm.stage)


def measure_plainly(problem: Problem, rows: Rows, exponent: Int[Array, ""]) -> Float[Array, ""]:
    """The same by a decomposition, through which reverse mode goes."""
    order = 2 if problem.norm == "spectral" else "fro"
    matrix, exponent = rescale(jax.vmap(problem.source)(rows), exponent)
    return log_scaled(jnp.linalg.norm(matrix, ord=order), exponent)


def sweep_back_plainly(problem: Problem) -> Float[Array, " lags"]:
    """The same log norms by a decomposition a step: slower, and reverse mode goes through."""

    def back(state: tuple[Rows, Array], index: Array) -> tuple[tuple[Rows, Array], Array]:
        rows, exponent = pull_scaled(problem.steps, index, *state)
        return (rows, exponent), measure_plainly(problem, rows, exponent)

    first = unit_rows(problem.steps, problem.target), jnp.zeros((), jnp.int32)
    _, log_norms = jax.lax.scan(back, first, jnp.arange(problem.steps.num_steps)[::-1])
    return jnp.append(measure_plainly(problem, *first), log_norms)
