"""How large the paths from c_{t-1} to c_t are, and where the one-line formula goes wrong."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Carry, Cell, Params
from gradflow.flow.broken import broken_lags, broken_steps, void
from gradflow.flow.closed_over import open_cell
from gradflow.flow.decomposition import Run, measure, step_terms
from gradflow.flow.lstm_form import Readout, check_equations
from gradflow.flow.reverse import Scaled, log_norm
from gradflow.flow.steps import block, pull_scaled, rescale, unit_rows
from gradflow.unroll import Lengths, Mask, check_inputs, valid_steps


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
    """How large the paths of `decomposition` are, and where the one-line formula goes wrong.

    That formula, ∂c_T/∂c_k = diag(f_T ∘ ... ∘ f_{k+1}), stands beside the product of the M_t and
    the exact derivatives. The arguments and the errors are those of `decomposition`.

    Returns:
      Log norms; -inf where a term is exactly zero, NaN where a NaN or an infinity of the
      trajectory enters.
    """
    mask = valid_steps(check_inputs(inputs), lengths, mask)
    cell, params, carry = open_cell(cell, params, inputs, carry)
    result, mismatch = measure(_all_norms, cell, readout, (params, inputs, carry, mask))
    check_equations(mismatch)
    return result


class _Later(NamedTuple):
    """The products from T back to some step, each with its exponent."""

    forget: Scaled
    """The diagonal of the one-line formula."""
    total: Scaled
    """M_T ... M_{k+1}."""
    rows: Scaled
    """∂c_T/∂s_k, a pytree of rows over the carry."""


def _all_norms(run: Run) -> DecompositionNorms:
    """One pass back, in which no more than one step's matrices are in memory."""

    def back(later: _Later, at: tuple) -> tuple[_Later, tuple[Array, Array]]:
        index, s, x, o = at
        terms = step_terms(run, s, x, o)
        total = jnp.sum(jnp.stack(terms), axis=0)
        later = _Later(
            Scaled(
                *rescale(later.forget.value * jnp.diagonal(terms.forget), later.forget.exponent)
            ),
            Scaled(*rescale(later.total.value @ total, later.total.exponent)),
            Scaled(*pull_scaled(run.steps, index, *later.rows)),
        )
        matrices = *terms, total, jnp.diag(later.forget.value), later.total.value
        norms = jax.lax.map(_log_spectral, jnp.stack([*matrices, *_exact(run, s, o, later.rows)]))
        scales = [product.log_scale() for product in (*later, later.rows)]
        return later, (norms[:5], norms[5:] + jnp.stack(scales))

    o = run.o_before
    one, zero = jnp.eye(o.shape[1], dtype=o.dtype), jnp.zeros((), jnp.int32)
    rows = Scaled(unit_rows(run.steps, block(run.steps.cell, "c")), zero)
    first = _Later(Scaled(jnp.diagonal(one), zero), Scaled(one, zero), rows)
    along = jnp.arange(len(o)), run.steps.before, run.steps.xs, o
    _, (by_step, products) = jax.lax.scan(back, first, along, reverse=True)
    # Index = lag instead of k, with the identity at lag 0.
    by_lag = jnp.concatenate([jnp.zeros_like(products[:1]), products[::-1]])
    by_step = void(broken_steps(run.steps), by_step)
    return DecompositionNorms(*by_step.T, *void(broken_lags(run.steps), by_lag).T)


_log_spectral = partial(log_norm, order=2)


def _exact(run: Run, s: Carry, o: Array, rows: Scaled) -> tuple[Array, Array]:
    """dc_T/dc_k less its exponent, with h_k moving with c_k and with h_k held fixed."""
    _, through_h = jax.vjp(lambda c: o * run.readout(c), s.c)
    fixed = rows.value.c
    return fixed + jax.vmap(lambda row: through_h(row)[0])(rows.value.h), fixed
