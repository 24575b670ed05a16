"""The singular values of ∂h_T/∂h_k: all at every lag T - k, or the leading ones at a few lags."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.scipy.special import entr
from jaxtyping import Array, Float

from gradflow.cell import Carry, Cell, Params
from gradflow.flow.blocks import Blocks
from gradflow.flow.chunks import Runner
from gradflow.flow.decoupled import Method, Part, by_blocks
from gradflow.flow.joins import joined_values
from gradflow.flow.nonfinite import nonfinite_from, set_nan
from gradflow.flow.structure import Places, Structure
from gradflow.flow.trace import Trace, as_matrix, compiled, trace_of
from gradflow.numerics.jacobi import graded_svd
from gradflow.numerics.lapack import singular_values
from gradflow.numerics.scaling import Scaled, log_scaled, scaled
from gradflow.unroll import Lengths, Mask, check_inputs

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
    """Computes log σ_i of ∂target_T/∂source_k, all of them, for every lag T - k = 0 ... T.

    The product on the whole carry is kept as its own decomposition while it grows back in time::

        S_target · J_T ... J_{k+1} = U Σ V    V J_k = B    Σ B = U' Σ' V'

    with the logarithms of Σ and the orthonormal rows of V; U and U' change no singular value and
    are dropped. Σ B is decomposed by `graded_svd`, which gives the smallest value as exactly as
    the largest, however many orders of magnitude lie between. The block is Σ (V S_sourceᵀ), done
    likewise.

    A step adds a relative error of about eps times the condition of J_k, over the cosine of the
    angle between a direction's past and its future. Where the source is a part of the carry, eps
    times the condition of V S_sourceᵀ comes in once, at the lag itself. The cost is O(n³) a
    step, for one decomposition, or two where the source is a part of the carry. Reverse mode
    does not go through them. The arguments are those common to all measurements (`gradflow.flow`).

    Returns:
      Log singular values in nats, index = lag, in descending order: as many as the smaller of
      the two blocks has entries. -inf where one is zero, and where a single step shrinks its
      direction beyond the digits of the float type, so that nothing tells it from zero; NaN from
      the lag at which a NaN or an infinity of the trajectory enters.

    Raises:
      ValueError: For an unknown block, or inputs that are not one sequence.
    """
    given = {"carry": carry, "lengths": lengths, "mask": mask}
    return log_singular_values_along(
        trace_of, cell, params, inputs, source=source, target=target, **given
    )


def log_singular_values_along(
    run: Runner,
    cell: Cell,
    params: Params,
    inputs: Array,
    *,
    source: str,
    target: str,
    **given: Any,
) -> Float[Array, "lags values"]:
    """Computes `log_singular_values` along the path that the cell is run on."""
    blocks = Blocks(source, target).check(cell)
    path = run(cell, params, inputs, **given)
    through = by_blocks(Method(_through, _union), None, blocks)
    return path.sweep(through, None, backward=True)[1][::-1]


@compiled("options", "blocks")
def _through(
    options: None, blocks: Blocks | Places, state: Spectrum | None, trace: Trace
) -> tuple[Spectrum, Float[Array, "steps values"]]:
    """Goes back through the steps; without a state from T on, with the values at lag 0."""
    del options

    def back(state: Spectrum, k: Array) -> tuple[Spectrum, Array]:
        log_values, vectors = state
        # At lag 0, where k = T, nothing is pulled: so one decomposition is compiled, and not two.
        rows = trace.pull(k, scaled(trace.as_rows(vectors)))
        is_first = k == trace.num_steps
        moved = log_values + jnp.where(is_first, 0, rows.log_scale())
        log_values, vectors = graded_svd(moved, jnp.where(is_first, vectors, as_matrix(rows.value)))
        part = blocks.cut(trace, trace.as_rows(vectors))
        if part.shape == vectors.shape:  # all of the carry, in whatever order
            return (log_values, vectors), log_values
        return (log_values, vectors), graded_svd(log_values, part)[0]

    last = trace.num_steps
    if state is None:
        matrix = as_matrix(blocks.rows(trace))
        state, last = (jnp.zeros(len(matrix), matrix.dtype), matrix), last + 1
    state, log_values = jax.lax.scan(back, state, jnp.arange(last), reverse=True)
    return state, set_nan(nonfinite_from(trace)[:last], log_values)


def _union(
    options: None, structure: Structure, parts: Sequence[Part], trace: Trace
) -> Float[Array, "steps values"]:
    """The singular values of a matrix from those of its diagonal blocks."""
    del options
    log_values = joined_values(structure, parts)
    return set_nan(nonfinite_from(trace)[: len(log_values)], log_values)


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
    """Computes log σ_i of ∂target_T/∂source_k at a few lags, those that rounding leaves.

    One singular value decomposition a lag, of the rescaled product. No search is involved: each
    value has an absolute error of about (256 + 8 lag + 4 n √lag) eps σ_1 with n the size of the
    carry, that of the rounded product, so a relative error of σ_1/σ_i times as much. That is an
    estimate and no bound: ten cells of 8 to 64 units reached 0.13 of it at lags up to 80. (Rounding
    accumulates beyond it only where directions that lead at one lag are cut at a later one.) What
    is not above that error is NaN; `log_singular_values` has all of them, at every lag, for a
    decomposition a step. The arguments are those common to all measurements (`gradflow.flow`), and

    Args:
      lags: Ascending lags T - k, within 0 ... T.

    Returns:
      Log singular values in nats, descending, as many as the smaller block has entries; NaN
      from the lag at which a NaN or an infinity of the trajectory enters.

    Raises:
      ValueError: For lags that do not ascend within 0 ... T, an unknown block, or inputs that are
        not one sequence.
    """
    num_steps, lags = len(check_inputs(inputs)), tuple(int(lag) for lag in lags)
    if not lags or list(lags) != sorted(set(lags)) or lags[0] < 0 or lags[-1] > num_steps:
        raise ValueError(
            f"Expected ascending lags within 0 ... T = {num_steps}, got {list(lags)}. Sort them, "
            "each once."
        )
    blocks = Blocks(source, target).check(cell)
    trace = trace_of(cell, params, inputs, carry=carry, lengths=lengths, mask=mask)
    return by_blocks(Method(_leading, _union_at), lags, blocks)(None, trace)[1]


def _union_at(
    lags: tuple[int, ...], structure: Structure, parts: Sequence[Part], trace: Trace
) -> Float[Array, "lags values"]:
    """The same at a few lags."""
    bad = nonfinite_from(trace)[trace.num_steps - np.asarray(lags)]
    return set_nan(bad, joined_values(structure, parts))


@compiled("lags", "blocks")
def _leading(
    lags: tuple[int, ...], blocks: Blocks | Places, state: None, trace: Trace
) -> tuple[None, Float[Array, "lags values"]]:
    carry_size = ravel_pytree(trace.last)[0].size

    def back(lag: Array, product: Scaled) -> Scaled:
        return trace.pull(trace.num_steps - lag - 1, product)

    def to_next(product: Scaled, span: tuple[Array, Array]) -> tuple[Scaled, Array]:
        product = jax.lax.fori_loop(*span, back, product)
        matrix = blocks.cut_scaled(trace, product)
        values = singular_values(matrix.value)
        lag = span[1].astype(values.dtype)
        units = 256 + 8 * lag + 4 * carry_size * jnp.sqrt(lag)
        error = units * jnp.finfo(values.dtype).eps
        lost = values <= error * values[0]
        kept = jnp.where(lost & (values[0] > 0), jnp.nan, values)
        return product, log_scaled(kept, matrix.exponent)

    spans = jnp.asarray((0, *lags[:-1])), jnp.asarray(lags)
    _, log_values = jax.lax.scan(to_next, scaled(blocks.rows(trace)), spans)
    return state, set_nan(nonfinite_from(trace)[trace.num_steps - spans[1]], log_values)


def effective_rank(log_values: Float[Array, "*lags values"]) -> Float[Array, "*lags"]:
    """Computes how many directions singular values spread over: exp(-Σ p_i log p_i).

    p_i = σ_i / Σ σ. Dimensionless, from 1 to n; NaN where all values are zero.

    Source: Roy & Vetterli 2007, EUSIPCO, definition 1.
    """
    return jnp.exp(jnp.sum(entr(jax.nn.softmax(log_values)), axis=-1))
