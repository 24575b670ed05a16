"""All singular values of ∂h_T/∂h_k at every lag T - k, and what is read from them."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax.scipy.special import entr
from jaxtyping import Array, Float

from gradflow.cell import Carry, Cell, Params
from gradflow.flow.broken import broken_lags, void
from gradflow.flow.closed_over import open_cell
from gradflow.flow.jacobi import graded_svd
from gradflow.flow.qr import carry_rows, flat_rows
from gradflow.flow.steps import block, pull_scaled, trajectory, unit_rows
from gradflow.unroll import Lengths, Mask, check_inputs, valid_steps

Spectrum = tuple[Float[Array, " rank"], Float[Array, "rank carry"]]
"""log Σ and V of a product U Σ V."""


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
      the lag at which a NaN or an infinity of the trajectory enters.

    Raises:
      ValueError: For an unknown block, or inputs that are not one sequence.
    """
    mask = valid_steps(check_inputs(inputs), lengths, mask)
    cell, params, carry = open_cell(cell, params, inputs, carry)
    return spectrum_through(cell, (source, target), (params, inputs, carry, mask))[1]


@partial(jax.jit, static_argnums=(0, 1))
def spectrum_through(
    cell: Cell, blocks: tuple[str, str], arguments: tuple, spectrum: Spectrum | None = None
) -> tuple[Spectrum, Float[Array, "lags values"]]:
    """Back through a sequence: where that leads, and the values at each lag.

    Args:
      cell: The cell.
      blocks: Source and target.
      arguments: The parameters, the inputs, s_0 or None, and the mask of real steps or None.
      spectrum: Where the sweep has come to in the steps after these; by default there are none, and
        the values start at lag 0.
    """
    params, inputs, carry, mask = arguments
    source, target = (block(cell, name) for name in blocks)

    def back(state: Spectrum, lag: Array) -> tuple[Spectrum, Array]:
        log_values, vectors = state
        rows, exponent = pull_scaled(
            steps, steps.num_steps - lag, carry_rows(steps, vectors), jnp.zeros((), jnp.int32)
        )
        moved = log_values + jnp.where(lag == 0, 0, exponent) * math.log(2)
        log_values, vectors = graded_svd(moved, jnp.where(lag == 0, vectors, flat_rows(rows)))
        part = jax.vmap(source)(carry_rows(steps, vectors))
        if part.shape == vectors.shape:  # all of the carry, in whatever order
            return (log_values, vectors), log_values
        return (log_values, vectors), graded_svd(log_values, part)[0]

    with jax.default_matmul_precision("highest"):
        steps = trajectory(cell, params, inputs, carry=carry, mask=mask)
        matrix = flat_rows(unit_rows(steps, target))
        lags = jnp.arange(steps.num_steps + 1)[0 if spectrum is None else 1 :]
        start = (jnp.zeros(len(matrix), matrix.dtype), matrix) if spectrum is None else spectrum
        spectrum, log_values = jax.lax.scan(back, start, lags)
        return spectrum, void(broken_lags(steps)[lags], log_values)


def log_condition(log_values: Float[Array, "*lags values"]) -> Float[Array, "*lags"]:
    """The logarithm of the condition number, log(σ_1/σ_n), in nats, of descending log values."""
    return log_values[..., 0] - log_values[..., -1]


def effective_rank(log_values: Float[Array, "*lags values"]) -> Float[Array, "*lags"]:
    """How many singular values share the size: exp(-Σ p_i log p_i) with p_i = σ_i / Σ σ.

    Dimensionless, from 1 to n; NaN where all values are zero.

    Source: Roy & Vetterli 2007, EUSIPCO, definition 1.
    """
    return jnp.exp(jnp.sum(entr(jax.nn.softmax(log_values)), axis=-1))
