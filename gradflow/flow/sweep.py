"""The sweep back from T through all steps, with a norm at each: dense, or thinned out.

Most of the time goes into pulling the rows; so there should be few of them (`thinning`), and the
norm should cost little beside it (`spectral`).
"""

from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from gradflow.cell import Cell
from gradflow.flow.spectral import spectral_norm, start_vectors
from gradflow.flow.steps import (
    Rows,
    Select,
    Steps,
    block,
    log_scaled,
    pull_rows,
    rescale,
    trajectory,
    unit_rows,
)
from gradflow.flow.thinning import Lost, column_basis, fits, nothing_lost, thin
from gradflow.lapack import qr

Norm: TypeAlias = Literal["spectral", "frobenius"]

SPECTRAL_TOLERANCE = 1e-9
"""Relative error of the iterative spectral norm, in float64."""

STEPS_BETWEEN_TESTS = 64
"""Steps after which it is tried to thin the rows out."""

WORTH_THINNING = 1e10
"""Steps times rows cubed from which the time saved outweighs that of compiling for it."""

NARROWEST = 32
"""Fewest rows to thin out to."""

ROUNDING = 64 * float(np.finfo(np.float64).eps)
"""Share of each leaf of the carry that may be left out."""

DOUBT = 1e-10
"""Share of a norm up to which what was left out may grow."""


class Problem(NamedTuple):
    """A trajectory, and the block of its products whose norms are wanted."""

    steps: Steps
    norm: Norm
    source: Select
    target: Select


class _Sweep(NamedTuple):
    """The state of a sweep back through the steps, from T to 1."""

    place: Int[Array, ""]
    """The step to be pulled through next, counted from 0; -1 at the end."""
    rows: Rows
    exponent: Int[Array, ""]
    vectors: Float[Array, "rows block"]
    """Where the search for the spectral norm starts."""
    lost: Lost
    log_norms: Float[Array, " lags"]
    doubt: Float[Array, ""]
    """The largest share, so far, that what was lost may have in a norm."""


def prepare(cell: Cell, kind: tuple[Norm, str, str], arguments: tuple) -> Problem:
    """The problem of a kind (norm, source, target) and arguments (params, inputs, s_0, mask).

    Raises:
      ValueError: For an unknown block, or inputs that are not one sequence.
    """
    params, inputs, carry, mask = arguments
    norm, source, target = kind
    steps = trajectory(cell, params, inputs, carry=carry, mask=mask)
    return Problem(steps, norm, block(cell, source), block(cell, target))


def measure(
    problem: Problem, rows: Rows, exponent: Int[Array, ""], vectors: Array
) -> tuple[Float[Array, ""], Float[Array, "rows block"]]:
    """The log norm of the block of 2^exponent · rows, and where to look for the next one."""
    if problem.norm == "frobenius":
        return measure_plainly(problem, rows, exponent), vectors
    # The block may be far smaller than the rest of the carry, and its squares smaller still.
    matrix, exponent = rescale(jax.vmap(problem.source)(rows), exponent)
    tolerance = max(SPECTRAL_TOLERANCE, 8 * float(jnp.finfo(matrix.dtype).eps))
    value, vectors = spectral_norm(matrix, vectors, tolerance)
    return log_scaled(value, exponent), vectors


def measure_plainly(problem: Problem, rows: Rows, exponent: Int[Array, ""]) -> Float[Array, ""]:
    """The same by a decomposition, through which reverse mode goes."""
    order = 2 if problem.norm == "spectral" else "fro"
    matrix, exponent = rescale(jax.vmap(problem.source)(rows), exponent)
    return log_scaled(jnp.linalg.norm(matrix, ord=order), exponent)


def _start(problem: Problem) -> _Sweep:
    rows = unit_rows(problem.steps, problem.target)
    exponent = jnp.zeros((), jnp.int32)
    like = jax.tree.leaves(rows)[0]
    log_norm, vectors = measure(problem, rows, exponent, start_vectors(len(like), like.dtype))
    num_steps = problem.steps.num_steps
    return _Sweep(
        place=jnp.asarray(num_steps - 1, jnp.int32),
        rows=rows,
        exponent=exponent,
        vectors=vectors,
        lost=nothing_lost(rows),
        log_norms=jnp.full(num_steps + 1, -jnp.inf, like.dtype).at[0].set(log_norm),
        doubt=jnp.zeros((), like.dtype),
    )


def _back(problem: Problem, sweep: _Sweep) -> _Sweep:
    """One step further back; past the first step, nothing that counts."""
    rows, exponent = rescale(pull_rows(problem.steps, sweep.place, sweep.rows), sweep.exponent)
    log_norm, vectors = measure(problem, rows, exponent, sweep.vectors)
    lag = problem.steps.num_steps - sweep.place
    return sweep._replace(
        place=sweep.place - 1,
        rows=rows,
        exponent=exponent,
        vectors=vectors,
        log_norms=sweep.log_norms.at[lag].set(log_norm, mode="drop"),
    )


def _back_with_lost(problem: Problem, sweep: _Sweep) -> _Sweep:
    """One step further back with the rows that were left out beside it."""
    lost = Lost(
        *rescale(pull_rows(problem.steps, sweep.place, sweep.lost.rows), sweep.lost.exponent)
    )
    moved = _back(problem, sweep)
    size = jnp.linalg.norm(jax.vmap(problem.source)(lost.rows))
    lag = problem.steps.num_steps - sweep.place
    share = jnp.exp(log_scaled(size, lost.exponent) - moved.log_norms[lag])
    counts = (sweep.place >= 0) & (size > 0)
    doubt = jnp.where(counts, jnp.maximum(sweep.doubt, share), sweep.doubt)
    return moved._replace(lost=lost, doubt=doubt)


def _widths(rows: int, num_steps: int, dtype: jnp.dtype) -> list[int]:
    """The numbers of rows to thin down to, one after the other."""
    if dtype != jnp.float64 or num_steps * rows**3 < WORTH_THINNING:
        return []
    return [rows >> halvings for halvings in (1, 2, 3) if rows >> halvings >= NARROWEST]


def _back_until_thin(problem: Problem, sweep: _Sweep, width: int) -> _Sweep:
    """Goes back until the rows fit into ``width``, or to the end; then thins them."""

    def unfinished(state: tuple[_Sweep, Bool[Array, ""]]) -> Bool[Array, ""]:
        return (state[0].place >= 0) & ~state[1]

    def advance(state: tuple[_Sweep, Bool[Array, ""]]) -> tuple[_Sweep, Bool[Array, ""]]:
        sweep = jax.lax.fori_loop(
            0, STEPS_BETWEEN_TESTS, lambda _, s: _back_with_lost(problem, s), state[0]
        )
        return sweep, fits(sweep.rows, column_basis(sweep.rows, width), ROUNDING)

    sweep, _ = jax.lax.while_loop(unfinished, advance, (sweep, jnp.zeros((), bool)))
    basis = column_basis(sweep.rows, width)
    rows, lost = thin(sweep.rows, sweep.exponent, basis, sweep.lost)
    vectors, _ = qr(basis.T @ sweep.vectors)
    return sweep._replace(rows=rows, lost=lost, vectors=vectors)


def _sweep_dense(problem: Problem) -> Float[Array, " lags"]:
    """All rows at every step."""
    num_steps = problem.steps.num_steps
    return jax.lax.fori_loop(
        0, num_steps, lambda _, s: _back(problem, s), _start(problem)
    ).log_norms


def sweep_back(problem: Problem) -> Float[Array, " lags"]:
    """Fewer rows as rounding allows; all of them after all where that shows as unsafe."""
    sweep = _start(problem)
    like = jax.tree.leaves(sweep.rows)[0]
    widths = _widths(len(like), problem.steps.num_steps, like.dtype)
    if not widths:
        return _sweep_dense(problem)
    for width in widths:
        sweep = _back_until_thin(problem, sweep, width)
    sweep = jax.lax.while_loop(lambda s: s.place >= 0, lambda s: _back_with_lost(problem, s), sweep)
    log_norms, _ = jax.lax.while_loop(
        lambda state: state[1],
        lambda state: (_sweep_dense(problem), jnp.zeros((), bool)),
        (sweep.log_norms, sweep.doubt > DOUBT),
    )
    return log_norms
