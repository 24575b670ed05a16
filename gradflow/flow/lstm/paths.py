"""The contribution of each path to the gradient of an LSTM's cell state, as a number of steps."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Carry, Cell, Params
from gradflow.flow.blocks import block
from gradflow.flow.lstm.decomposition import LSTMTrace, measure_lstm
from gradflow.flow.lstm.form import Readout
from gradflow.flow.nonfinite import nonfinite_from, set_nan
from gradflow.flow.trace import pull_through
from gradflow.numerics.scaling import Scaled, log_norm, scaled
from gradflow.unroll import Lengths, Mask


class StepsByPath(NamedTuple):
    """The number of the lag's steps that the gradient takes each path, index = lag.

    Attributes:
      forget: diag(f_t), the cell state carried over: the path of the one-line formula.
      through_f: Through the forget gate, which depends on s_{t-1}.
      through_i: Through the input gate.
      through_g: Through the candidate.
      through_o: Through the output gate, from s_{t-1} to h_t.
    """

    forget: Float[Array, " lags"]
    through_f: Float[Array, " lags"]
    through_i: Float[Array, " lags"]
    through_g: Float[Array, " lags"]
    through_o: Float[Array, " lags"]


def steps_by_path(
    cell: Cell,
    params: Params,
    inputs: Float[Array, "steps input"],
    *,
    carry: Carry | None = None,
    readout: Readout = jnp.tanh,
    lengths: Lengths | None = None,
    mask: Mask | None = None,
) -> StepsByPath:
    """Computes how much of dc_T/dc_k is due to each path, in steps, which sum to the lag.

    With a factor α on each path, all of them 1::

        dc_t = α_forget f_t ∘ dc_{t-1} + α_f c_{t-1} ∘ df_t + α_i g_t ∘ di_t + α_g i_t ∘ dg_t
        dh_t = o_t ∘ φ'(c_t) ∘ dc_t + α_o φ(c_t) ∘ do_t

    the result is ∂ log ‖dc_T/dc_k‖ / ∂ log α, the sensitivity of the spectral norm to each path.
    Every chain from c_k to c_T takes one factor a step, so that they sum to T - k (Euler's theorem
    on homogeneous functions). One is negative where the path works against the rest, and a padded
    step takes no factor. The arguments and the errors are those of `decomposition`.

    Returns:
      Numbers of steps; NaN from the lag at which a NaN or an infinity of the trajectory enters.
    """
    given = {"carry": carry, "lengths": lengths, "mask": mask}
    return measure_lstm(_steps_by_path, cell, params, inputs, readout, **given)


def _steps_by_path(lstm: LSTMTrace) -> StepsByPath:
    ones = StepsByPath(*jnp.ones((5,), lstm.o_before.dtype))
    by_factors = jax.jacfwd(partial(_log_norms, lstm))(ones)
    return set_nan(nonfinite_from(lstm.trace)[::-1], by_factors)


def _log_norms(lstm: LSTMTrace, factors: StepsByPath) -> Float[Array, " lags"]:
    """log ‖dc_T/dc_k‖ with h_k moving with c_k and o_k held fixed, for factors on the paths."""

    def back(later: Scaled, at: tuple) -> tuple[Scaled, Array]:
        s, x, is_real, after, o = at
        step = partial(_weighted_step, lstm, factors, (s, x, is_real, after))
        rows = pull_through(step, s, later)
        _, vjp = jax.vjp(partial(_along_c, lstm, s, o), s.c)
        by_c = jax.vmap(lambda row: vjp(row)[0])(rows.value)
        return rows, log_norm(by_c, order=2) + rows.log_scale()

    trace = lstm.trace
    first = scaled(trace.unit_rows(block(trace.cell, "c")))
    along = trace.before, trace.xs, lstm.is_real, trace.after(), lstm.o_before
    _, log_norms = jax.lax.scan(back, first, along, reverse=True)
    return jnp.concatenate([jnp.zeros_like(log_norms[:1]), log_norms[::-1]])


def _along_c(lstm: LSTMTrace, s: Carry, o: Array, c: Array) -> Carry:
    """The carry as a function of c, where h = o ∘ φ(c) moves with it."""
    still = jax.tree.map(jax.lax.stop_gradient, s)
    return still._replace(h=o * lstm.readout(c), c=c)


def _weighted_step(lstm: LSTMTrace, factors: StepsByPath, at: tuple, moved: Carry) -> Carry:
    """A function whose derivative by ``moved`` is the step's, with a factor on each path."""
    s, x, is_real, after = at
    still = lstm.gates(lstm.trace.params, s, x)
    gates = lstm.gates(lstm.trace.params, moved, x)
    c = (
        factors.forget * still["f"] * moved.c
        + factors.through_f * s.c * gates["f"]
        + factors.through_i * still["g"] * gates["i"]
        + factors.through_g * still["i"] * gates["g"]
    )
    phi, by_c = jax.jvp(lstm.readout, (after.c,), (c,))
    h = still["o"] * by_c + factors.through_o * phi * gates["o"]
    stepped = moved._replace(h=h, c=c)
    return jax.tree.map(lambda new, old: jnp.where(is_real, new, old), stepped, moved)
