"""By which paths the gradient of an LSTM's cell state comes through, step for step."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Carry, Cell, Params
from gradflow.flow.broken import broken_lags, void
from gradflow.flow.closed_over import open_cell
from gradflow.flow.decomposition import Run, measure
from gradflow.flow.lstm_form import Readout, check_equations
from gradflow.flow.reverse import Scaled, carries_after, log_norm
from gradflow.flow.steps import Rows, block, rescale, unit_rows, with_room
from gradflow.unroll import Lengths, Mask, check_inputs, valid_steps


class StepsByPath(NamedTuple):
    """How many of the lag's steps the gradient takes each path, index = lag; dimensionless.

    Attributes:
      forget: diag(f_t), the cell state carried over: the path of the one-line formula.
      through_f: By the forget gate's answer to s_{t-1}.
      through_i: By the input gate's.
      through_g: By the candidate's.
      through_o: By the output gate's, from s_{t-1} to h_t.
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
    """How much of dc_T/dc_k is due to each path, as a number of steps; they sum to the lag.

    With a factor α on each path, all of them 1::

        dc_t = α_forget f_t ∘ dc_{t-1} + α_f c_{t-1} ∘ df_t + α_i g_t ∘ di_t + α_g i_t ∘ dg_t
        dh_t = o_t ∘ φ'(c_t) ∘ dc_t + α_o φ(c_t) ∘ do_t

    the result is ∂ log ‖dc_T/dc_k‖ / ∂ log α, the spectral norm's answer to each path. Every way
    from c_k to c_T takes one factor a step, so that the answers sum to T - k (Euler's theorem on
    homogeneous functions). One is negative where the path works against the rest, and a padded
    step takes no factor. The arguments and the errors are those of `decomposition`.

    Returns:
      Numbers of steps; NaN from the lag at which a NaN or an infinity of the trajectory enters.
    """
    mask = valid_steps(check_inputs(inputs), lengths, mask)
    cell, params, carry = open_cell(cell, params, inputs, carry)
    result, mismatch = measure(_steps_by_path, cell, readout, (params, inputs, carry, mask))
    check_equations(mismatch)
    return result


def _steps_by_path(run: Run) -> StepsByPath:
    ones = StepsByPath(*jnp.ones((5,), run.o_before.dtype))
    return void(broken_lags(run.steps), jax.jacfwd(partial(_log_norms, run))(ones))


def _log_norms(run: Run, factors: StepsByPath) -> Float[Array, " lags"]:
    """log ‖dc_T/dc_k‖ with h_k moving with c_k and o_k held fixed, for factors on the paths."""

    def back(later: Scaled, at: tuple) -> tuple[Scaled, Array]:
        s, x, is_real, after, o = at
        step = partial(_scaled_step, run, factors, (s, x, is_real, after))
        enlarged, shift = with_room(later.value)
        rows = Scaled(*rescale(_pull(step, s, enlarged), later.exponent - shift))
        by_c = _pull(partial(_along_c, run, s, o), s.c, rows.value)
        return rows, log_norm(by_c, order=2) + rows.log_scale()

    one = Scaled(unit_rows(run.steps, block(run.steps.cell, "c")), jnp.zeros((), jnp.int32))
    steps = run.steps
    along = steps.before, steps.xs, run.is_real, carries_after(steps), run.o_before
    _, log_norms = jax.lax.scan(back, one, along, reverse=True)
    return jnp.concatenate([jnp.zeros_like(log_norms[:1]), log_norms[::-1]])


def _pull(function: Callable[[Carry], Carry], at: Carry, rows: Rows) -> Rows:
    """rows · ∂function/∂at."""
    _, vjp = jax.vjp(function, at)
    return jax.vmap(lambda row: vjp(row)[0])(rows)


def _along_c(run: Run, s: Carry, o: Array, c: Array) -> Carry:
    """The carry as its c moves and takes h = o ∘ φ(c) with it."""
    still = jax.tree.map(jax.lax.stop_gradient, s)
    return still._replace(h=o * run.readout(c), c=c)


def _scaled_step(run: Run, factors: StepsByPath, at: tuple, moved: Carry) -> Carry:
    """A function whose derivative by ``moved`` is the step's, with a factor on each path."""
    s, x, is_real, after = at
    still = run.gates(run.steps.params, s, x)
    gates = run.gates(run.steps.params, moved, x)
    c = (
        factors.forget * still["f"] * moved.c
        + factors.through_f * s.c * gates["f"]
        + factors.through_i * still["g"] * gates["i"]
        + factors.through_g * still["i"] * gates["g"]
    )
    phi, by_c = jax.jvp(run.readout, (after.c,), (c,))
    h = still["o"] * by_c + factors.through_o * phi * gates["o"]
    stepped = moved._replace(h=h, c=c)
    return jax.tree.map(lambda new, old: jnp.where(is_real, new, old), stepped, moved)
