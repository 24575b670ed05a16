"""How large the paths from c_{t-1} to c_t are, and where the one-line formula goes wrong."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Carry, Cell, Params
from gradflow.flow.decomposition import Run, all_terms, measure
from gradflow.flow.lstm_form import Readout, check_equations
from gradflow.flow.reverse import Scaled, log_norm
from gradflow.flow.steps import block, pull_rows, rescale, unit_rows


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
) -> DecompositionNorms:
    """How large the paths of `decomposition` are, and where the one-line formula goes wrong.

    That formula, ∂c_T/∂c_k = diag(f_T ∘ ... ∘ f_{k+1}), stands beside the product of the M_t and
    the exact derivatives. The arguments and the errors are those of `decomposition`.

    Returns:
      Log norms; -inf where a term is exactly zero.
    """
    result, mismatch = measure(_all_norms, cell, readout, (params, inputs, carry))
    check_equations(mismatch)
    return result


def _all_norms(run: Run) -> DecompositionNorms:
    terms = all_terms(run)
    total = jnp.sum(jnp.stack(terms), axis=0)
    exact_total, exact_block = _log_exact(run)
    return DecompositionNorms(
        **{name: _each_log_spectral(term) for name, term in terms._asdict().items()},
        total=_each_log_spectral(total),
        product_forget=_log_products(terms.forget),
        product_total=_log_products(total),
        exact_total=exact_total,
        exact_block=exact_block,
    )


_log_spectral = partial(log_norm, order=2)
_each_log_spectral = jax.vmap(_log_spectral)


def _log_products(matrices: Float[Array, "steps n n"]) -> Float[Array, " lags"]:
    """log ‖A_T ... A_{k+1}‖ for every lag T - k."""

    def back(later: Scaled, matrix: Array) -> tuple[Scaled, Array]:
        product = Scaled(*rescale(later.value @ matrix, later.exponent))
        return product, _log_spectral(product.value) + product.log_scale()

    one = Scaled(jnp.eye(matrices.shape[-1], dtype=matrices.dtype), jnp.zeros((), jnp.int32))
    _, log_norms = jax.lax.scan(back, one, matrices, reverse=True)
    return _by_lag(log_norms)


def _log_exact(run: Run) -> tuple[Float[Array, " lags"], Float[Array, " lags"]]:
    """log ‖dc_T/dc_k‖ for every lag T - k, with h_k moving with c_k and with h_k held fixed."""

    def back(later: Scaled, step: tuple[Array, Carry, Array]) -> tuple[Scaled, tuple[Array, Array]]:
        index, s, o = step
        rows = Scaled(*rescale(pull_rows(run.steps, index, later.value), later.exponent))
        _, through_h = jax.vjp(lambda c: o * run.readout(c), s.c)
        fixed = rows.value.c
        moving = fixed + jax.vmap(lambda row: through_h(row)[0])(rows.value.h)
        return rows, (
            _log_spectral(moving) + rows.log_scale(),
            _log_spectral(fixed) + rows.log_scale(),
        )

    one = Scaled(unit_rows(run.steps, block(run.steps.cell, "c")), jnp.zeros((), jnp.int32))
    indices = jnp.arange(len(run.o_before))
    _, log_norms = jax.lax.scan(back, one, (indices, run.steps.before, run.o_before), reverse=True)
    return _by_lag(log_norms[0]), _by_lag(log_norms[1])


def _by_lag(log_norms: Float[Array, " steps"]) -> Float[Array, " lags"]:
    """Index = lag instead of k, with the identity at lag 0."""
    return jnp.concatenate([jnp.zeros_like(log_norms[:1]), log_norms[::-1]])
