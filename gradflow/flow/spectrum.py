"""All singular values of ∂h_T/∂h_k at every lag T - k, and what is read from them."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.scipy.special import entr
from jaxtyping import Array, Bool, Float

from gradflow.cell import Carry, Cell, Params
from gradflow.flow.jacobi import graded_svd
from gradflow.flow.qr import carry_rows, flat_rows
from gradflow.flow.steps import Rows, Select, Steps, block, pull_rows, trajectory, unit_rows
from gradflow.unroll import Lengths, Mask, check_inputs, valid_steps


def log_singular_values(
    cell: Cell,
    params: Params,
    inputs: Float[Array, "steps input"],
    *,
    source: str = "h",
    target: str = "h",
    carry: Carry | None = None,
    lengths: Lengths | None = None,
    mask: Mask | None = None,
) -> Float[Array, "lags values"]:
    """The logarithms of all singular values of ∂target_T/∂source_k for every lag T - k = 0 ... T.

    The product on the whole carry is kept as its own decomposition while it grows back in time::

        S_target · J_T ... J_{k+1} = U Σ V    V J_k = B    Σ B = U' Σ' V'

    with the logarithms of Σ and the orthonormal rows of V; U and U' change no singular value and
    are dropped. Σ B is decomposed by `graded_svd`, which gives the smallest value as exactly as
    the largest, however many decades lie between. The block is Σ (V S_sourceᵀ), done likewise.

    A step adds a relative error of about eps times the condition of J_k, over the cosine of the
    angle between a direction's past and its future. Where the source is a part of the carry, eps
    times the condition of V S_sourceᵀ comes in once, at the lag itself. The cost is O(n³) a
    step, for one decomposition, or two where the source is a part of the carry. Reverse mode
    does not go through them.

    Args:
      cell: The cell.
      params: Its parameters.
      inputs: x_1 ... x_T of one sequence; `jax.vmap` over more.
      source: The block of s_k: ``"h"``, ``"carry"`` or a field such as ``"c"``; the rest of s_k is
        held fixed.
      target: The block of s_T.
      carry: s_0; by default the cell's own.
      lengths: The number of real steps. A padded step copies the carry.
      mask: True where a step is real.

    Returns:
      Log singular values in nats, index = lag, in descending order: as many as the smaller of
      the two blocks has entries. -inf where one is zero, and where a single step shrinks its
      direction beyond the digits of the float type, so that nothing tells it from zero; NaN from
      the lag at which a NaN of the trajectory enters.

    Raises:
      ValueError: For an unknown block, or inputs that are not one sequence.
    """
    mask = valid_steps(check_inputs(inputs), lengths, mask)
    return _log_singular_values(cell, (source, target), params, inputs, carry, mask)


@partial(jax.jit, static_argnums=(0, 1))
def _log_singular_values(
    cell: Cell,
    blocks: tuple[str, str],
    params: Params,
    inputs: Array,
    carry: Carry | None,
    mask: Bool[Array, " steps"] | None,
) -> Float[Array, "lags values"]:
    source, target = (block(cell, name) for name in blocks)
    with jax.default_matmul_precision("highest"):
        steps = trajectory(cell, params, inputs, carry=carry, mask=mask)
        return _sweep(steps, source, unit_rows(steps, target), len(inputs))


def _sweep(steps: Steps, source: Select, rows: Rows, num_steps: int) -> Float[Array, "lags values"]:
    def back(state: tuple[Array, Array], lag: Array) -> tuple[tuple[Array, Array], Array]:
        log_values, vectors = state
        pulled = flat_rows(pull_rows(steps, num_steps - lag, carry_rows(steps, vectors)))
        log_values, vectors = graded_svd(log_values, jnp.where(lag == 0, vectors, pulled))
        part = jax.vmap(source)(carry_rows(steps, vectors))
        if part.shape == vectors.shape:  # all of the carry, in whatever order
            return (log_values, vectors), log_values
        return (log_values, vectors), graded_svd(log_values, part)[0]

    matrix = flat_rows(rows)
    first = jnp.zeros(len(matrix), matrix.dtype), matrix
    return jax.lax.scan(back, first, jnp.arange(num_steps + 1))[1]


def log_condition(log_values: Float[Array, "*lags values"]) -> Float[Array, "*lags"]:
    """The logarithm of the condition number, log(σ_1/σ_n), in nats, of descending log values."""
    return log_values[..., 0] - log_values[..., -1]


def effective_rank(log_values: Float[Array, "*lags values"]) -> Float[Array, "*lags"]:
    """How many singular values share the size: exp(-Σ p_i log p_i) with p_i = σ_i / Σ σ.

    Dimensionless, from 1 to n; NaN where all values are zero.

    Source: Roy & Vetterli 2007, EUSIPCO, definition 1.
    """
    return jnp.exp(jnp.sum(entr(jax.nn.softmax(log_values)), axis=-1))
