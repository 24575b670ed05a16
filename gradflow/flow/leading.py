"""The leading singular values of ∂h_T/∂h_k at a few lags, at the cost of the product alone."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Carry, Cell, Params
from gradflow.flow.broken import broken_lags, void
from gradflow.flow.closed_over import open_cell
from gradflow.flow.steps import (
    Rows,
    block,
    log_scaled,
    pull_scaled,
    rescale,
    trajectory,
    unit_rows,
)
from gradflow.lapack import singular_values
from gradflow.unroll import Lengths, Mask, check_inputs, valid_steps


def leading_singular_values(
    cell: Cell,
    params: Params,
    inputs: Float[Array, "steps input"],
    lags: Sequence[int],
    *,
    source: str = "h",
    target: str = "h",
    carry: Carry | None = None,
    lengths: Lengths | None = None,
    mask: Mask | None = None,
) -> Float[Array, "lags values"]:
    """The logarithms of the singular values of ∂target_T/∂source_k that rounding leaves.

    One singular value decomposition a lag, of the rescaled product. No search is involved: each
    value has an absolute error of at most (256 + 4 lag) eps σ_1, that of the rounded product, so a
    relative error of σ_1/σ_i times as much. (Rounding accumulates beyond that only where directions
    that lead at one lag are cut at a later one.) What is not above that error is NaN;
    `log_singular_values` has all of them, at every lag, for a decomposition a step. NaN altogether
    from the lag at which a NaN or an infinity of the trajectory enters.

    Args:
      cell: The cell.
      params: Its parameters.
      inputs: x_1 ... x_T of one sequence; `jax.vmap` over more.
      lags: Ascending lags T - k, within 0 ... T.
      source: The block of s_k: ``"h"``, ``"carry"`` or a field such as ``"c"``.
      target: The block of s_T.
      carry: s_0; by default the cell's own.
      lengths: The number of real steps. A padded step copies the carry.
      mask: True where a step is real.

    Returns:
      Log singular values in nats, descending, as many as the smaller block has entries.

    Raises:
      ValueError: For lags that do not ascend within 0 ... T, an unknown block, or inputs that are
        not one sequence.
    """
    inputs = check_inputs(inputs)
    mask = valid_steps(inputs, lengths, mask)
    cell, params, carry = open_cell(cell, params, inputs, carry)
    lags = tuple(int(lag) for lag in lags)
    if not lags or list(lags) != sorted(set(lags)) or lags[0] < 0 or lags[-1] > len(inputs):
        raise ValueError(
            f"ascending lags within 0 ... T = {len(inputs)} are expected, got {list(lags)}"
        )
    return _leading(cell, (source, target), lags, params, inputs, carry, mask)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _leading(
    cell: Cell,
    blocks: tuple[str, str],
    lags: tuple[int, ...],
    params: Params,
    inputs: Array,
    carry: Carry | None,
    mask: Array | None,
) -> Float[Array, "lags values"]:
    source, target = (block(cell, name) for name in blocks)

    def back(lag: Array, state: tuple[Rows, Array]) -> tuple[Rows, Array]:
        return pull_scaled(steps, len(inputs) - lag - 1, *state)

    def to_next(
        state: tuple[Rows, Array], span: tuple[Array, Array]
    ) -> tuple[tuple[Rows, Array], Array]:
        rows, exponent = jax.lax.fori_loop(*span, back, state)
        matrix, shift = rescale(jax.vmap(source)(rows), exponent)
        values = singular_values(matrix)
        error = (256 + 4 * span[1]) * jnp.finfo(values.dtype).eps
        lost = values <= error * values[0]
        kept = jnp.where(lost & (values[0] > 0), jnp.nan, values)
        return (rows, exponent), log_scaled(kept, shift)

    with jax.default_matmul_precision("highest"):
        steps = trajectory(cell, params, inputs, carry=carry, mask=mask)
        first = unit_rows(steps, target), jnp.zeros((), jnp.int32)
        spans = jnp.asarray((0, *lags[:-1])), jnp.asarray(lags)
        return void(broken_lags(steps)[spans[1]], jax.lax.scan(to_next, first, spans)[1])
