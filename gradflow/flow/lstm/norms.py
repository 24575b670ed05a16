"""The norms of the paths from c_{t-1} to c_t, and of their products beside the exact derivative."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Carry, Cell, Params
from gradflow.flow.blocks import block
from gradflow.flow.lstm.decomposition import LSTMTrace, measure_lstm, step_terms
from gradflow.flow.lstm.form import Readout
from gradflow.flow.nonfinite import nonfinite_from, nonfinite_steps, set_nan
from gradflow.numerics.scaling import Scaled, log_norm, rescale, scaled
from gradflow.unroll import Lengths, Mask


class DecompositionNorms(NamedTuple):
    """Log spectral norms, natural: of the terms M_t is made of, and of products of them.

    Attributes:
      forget: ‖diag(f_t)‖, index = t - 1, as with the next four.
      through_f: Of the path through the forget gate.
      through_i: Of the path through the input gate.
      through_g: Of the path through the candidate.
      total: ‖M_t‖, M_t the sum of the four.
      product_forget: ‖diag(f_T) ... diag(f_{k+1})‖, the one-line formula; index = lag = T - k, as
        with the next three.
      product_total: ‖M_T ... M_{k+1}‖.
      exact_total: ‖dc_T/dc_k‖ with h_k moving with c_k, o_k held fixed.
      exact_block: ‖∂c_T/∂c_k‖ with h_k held fixed, as `log_norms` has it.
    """

    forget: Float[Array, " steps"]
    through_f: Float[Array, " steps"]
    through_i: Float[Array, " steps"]
    through_g: Float[Array, " steps"]
    total: Float[Array, " steps"]
    product_forget: Float[Array, " lags"]
    product_total: Float[Array, " lags"]
    exact_total: Float[Array, " lags"]
    exact_block: Float[Array, " lags"]


def decomposition_norms(
    cell: Cell,
    params: Params,
    inputs: Float[Array, "steps input"],
    *,
    carry: Carry | None = None,
    readout: Readout = jnp.tanh,
    lengths: Lengths | None = None,
    mask: Mask | None = None,
) -> DecompositionNorms:
    """Computes the log norms of the paths of `decomposition`, and those of their products.

    The one-line formula, ∂c_T/∂c_k = diag(f_T ∘ ... ∘ f_{k+1}), stands beside the product of the
    M_t and the exact derivatives. The arguments and the errors are those of `decomposition`.

    Returns:
      Log norms; -inf where a term is exactly zero, NaN where a NaN or an infinity of the
      trajectory enters.
    """
    given = {"carry": carry, "lengths": lengths, "mask": mask}
    return measure_lstm(_all_norms, cell, params, inputs, readout, **given)


class _Later(NamedTuple):
    """The products from T back to some step."""

    forget: Scaled
    """The diagonal of the one-line formula."""
    total: Scaled
    """M_T ... M_{k+1}."""
    rows: Scaled
    """∂c_T/∂s_k, a pytree of rows over the carry."""


def _all_norms(lstm: LSTMTrace) -> DecompositionNorms:
    """Goes back once, with no more than one step's matrices in memory."""

    def back(later: _Later, at: tuple) -> tuple[_Later, tuple[Array, Array]]:
        index, s, x, o = at
        terms = step_terms(lstm, s, x, o)
        total = jnp.sum(jnp.stack(terms), axis=0)
        forget = later.forget.value * jnp.diagonal(terms.forget)
        later = _Later(
            rescale(forget, later.forget.exponent),
            rescale(later.total.value @ total, later.total.exponent),
            lstm.trace.pull(index, later.rows),
        )
        matrices = *terms, total, jnp.diag(later.forget.value), later.total.value
        matrices = jnp.stack([*matrices, *_exact(lstm, s, o, later.rows)])
        norms = jax.lax.map(lambda matrix: log_norm(matrix, order=2), matrices)
        scales = [product.log_scale() for product in (*later, later.rows)]
        return later, (norms[:5], norms[5:] + jnp.stack(scales))

    trace, o = lstm.trace, lstm.o_before
    one = jnp.eye(o.shape[1], dtype=o.dtype)
    rows = trace.unit_rows(block(trace.cell, "c"))
    first = _Later(scaled(jnp.diagonal(one)), scaled(one), scaled(rows))
    along = jnp.arange(len(o)), trace.before, trace.xs, o
    _, (by_step, products) = jax.lax.scan(back, first, along, reverse=True)
    by_step = set_nan(nonfinite_steps(trace), by_step)
    # Index = lag instead of k, with the identity at lag 0.
    by_k = jnp.concatenate([products, jnp.zeros_like(products[:1])])
    return DecompositionNorms(*by_step.T, *set_nan(nonfinite_from(trace), by_k)[::-1].T)


def _exact(lstm: LSTMTrace, s: Carry, o: Array, rows: Scaled) -> tuple[Array, Array]:
    """dc_T/dc_k without its exponent, with h_k moving with c_k and with h_k held fixed."""
    _, through_h = jax.vjp(lambda c: o * lstm.readout(c), s.c)
    fixed = rows.value.c
    return fixed + jax.vmap(lambda row: through_h(row)[0])(rows.value.h), fixed
