"""The paths from c_{t-1} to c_t in an LSTM, and what the one-line formula leaves out."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gradflow.cell import Carry, Cell, Params
from gradflow.flow.broken import broken_steps, void
from gradflow.flow.closed_over import open_cell
from gradflow.flow.exact_slopes import exact_slopes
from gradflow.flow.lstm_form import (
    LSTMGates,
    Readout,
    check_equations,
    lstm_gates,
    measure_mismatch,
    tolerance,
)
from gradflow.flow.steps import Steps, trajectory
from gradflow.unroll import Lengths, Mask, check_inputs, valid_steps


class Decomposition(NamedTuple):
    """The four terms of ∂c_t/∂c_{t-1}, ``[t-1, row, column]`` each, dimensionless.

    Attributes:
      forget: diag(f_t), the cell state carried over.
      through_f: diag(c_{t-1}) ∂f_t/∂c_{t-1}, the forget gate's answer.
      through_i: diag(g_t) ∂i_t/∂c_{t-1}, the input gate's answer.
      through_g: diag(i_t) ∂g_t/∂c_{t-1}, the candidate's answer.
    """

    forget: Float[Array, "steps hidden hidden"]
    through_f: Float[Array, "steps hidden hidden"]
    through_i: Float[Array, "steps hidden hidden"]
    through_g: Float[Array, "steps hidden hidden"]


class Run(NamedTuple):
    """A trajectory of an LSTM.

    Attributes:
      steps: The trajectory.
      gates: The gates at a step; at one that is padding, f = 1 and i = 0.
      readout: φ in h_t = o_t ∘ φ(c_t).
      o_before: ``o_before[t-1]`` is the o of h_{t-1}, and zero where h_{t-1} is h_0.
      is_real: Which steps are not padding.
    """

    steps: Steps
    gates: LSTMGates
    readout: Readout
    o_before: Float[Array, "steps hidden"]
    is_real: Bool[Array, " steps"]


def decomposition(
    cell: Cell,
    params: Params,
    inputs: Float[Array, "steps input"],
    *,
    carry: Carry | None = None,
    readout: Readout = jnp.tanh,
    lengths: Lengths | None = None,
    mask: Mask | None = None,
) -> Decomposition:
    """∂c_t/∂c_{t-1} of an LSTM as the sum of its four paths, for every step t.

    For c_t = f_t ∘ c_{t-1} + i_t ∘ g_t and h_t = o_t ∘ φ(c_t)::

        M_t = diag(f_t) + diag(c_{t-1}) F_t + diag(g_t) I_t + diag(i_t) G_t

    with F_t, I_t, G_t the derivatives of the gates f_t, i_t, g_t by c_{t-1}: by peepholes, and
    by h_{t-1}, which moves with c_{t-1} as D_{t-1} = diag(o_{t-1}) φ'(c_{t-1}), o_{t-1} held fixed.
    (Without peepholes F_t = diag(f_t ∘ (1 - f_t)) W_h^f D_{t-1}.) At t = 1, D_0 = 0: h_0 is given
    and does not come from c_0.

    The product M_T ... M_{k+1} leaves out the paths through the output gates between,
    c_{j-1} → h_{j-1} → o_j → h_j for k < j < T, and through the peephole c_j → o_j. So it is
    dc_T/dc_k, with o_k held fixed, at lag 1, and at every lag if the output gates see the inputs
    alone (W_h^o = 0 and no peephole); else it is not.

    Args:
      cell: A cell whose carry has fields h and c, with gates g, o, and i or f or both: without f,
        it is 1 (the LSTM of 1997); without i, it is 1 - f (coupled gates).
      params: Its parameters.
      inputs: x_1 ... x_T of one sequence; `jax.vmap` over more.
      carry: s_0; by default the cell's own.
      readout: φ.
      lengths: The number of real steps. A padded step copies the carry: its M_t is the identity,
        which counts as carried over.
      mask: True where a step is real.

    Returns:
      The four terms; NaN at a step from or to a carry that is not finite.

    Raises:
      ValueError: If the cell has not these fields or gates, or not these equations. (Under
        `jax.jit`, where no value is known, the result is NaN if it has not these equations.)

    Source: Hochreiter & Schmidhuber 1997, and Gers, Schmidhuber, Cummins 2000, whose truncated
    gradient is the first term alone.
    """
    mask = valid_steps(check_inputs(inputs), lengths, mask)
    cell, params, carry = open_cell(cell, params, inputs, carry)
    result, mismatch = measure(all_terms, cell, readout, (params, inputs, carry, mask))
    check_equations(mismatch)
    return result


@partial(jax.jit, static_argnums=(0, 1, 2))
def measure(
    of_run: Callable[[Run], Any], cell: Cell, readout: Readout, arguments: tuple
) -> tuple[Any, Float[Array, ""]]:
    """A measure of the run, and how far the cell is from the equations."""
    params, inputs, carry, mask = arguments
    is_real = jnp.ones(len(inputs), bool) if mask is None else mask
    gates = lstm_gates(cell, padded=mask is not None)
    with jax.default_matmul_precision("highest"):
        steps = trajectory(cell, params, inputs, carry=carry, mask=mask)
        values = jax.vmap(partial(gates, params))(steps.before, steps.xs)
        values["o"] = _of_last_real(values["o"], is_real)
        o_before = jnp.concatenate([jnp.zeros_like(values["o"][:1]), values["o"][:-1]])
        exact = exact_slopes(gates), exact_slopes(readout)
        result = of_run(Run(steps, *exact, o_before, is_real))
        mismatch = measure_mismatch(steps, readout, values, is_real)
    has_equations = ~(mismatch > tolerance(mismatch))
    return jax.tree.map(lambda leaf: jnp.where(has_equations, leaf, jnp.nan), result), mismatch


def _of_last_real(values: Array, is_real: Bool[Array, " steps"]) -> Array:
    """The values of the last real step up to each, and zero before the first."""
    last = jax.lax.cummax(jnp.where(is_real, jnp.arange(len(values)), -1))
    return jnp.where(last[:, None] >= 0, values[last], 0)


def step_terms(run: Run, s: Carry, x: Any, o_before: Array) -> Decomposition:
    """The terms at one step: the gates are differentiated along c, which takes h with it."""
    gates, push = jax.linearize(lambda s: run.gates(run.steps.params, s, x), s)

    def along(unit: Array) -> dict[str, Array]:
        _, answer = jax.jvp(run.readout, (s.c,), (unit,))
        still = jax.tree.map(jnp.zeros_like, s)
        return push(still._replace(h=o_before * answer, c=unit))

    by_c = jax.vmap(along, out_axes=-1)(jnp.eye(s.c.size, dtype=s.c.dtype))
    return Decomposition(
        forget=jnp.diag(gates["f"]),
        through_f=s.c[:, None] * by_c["f"],
        through_i=gates["g"][:, None] * by_c["i"],
        through_g=gates["i"][:, None] * by_c["g"],
    )


def all_terms(run: Run) -> Decomposition:
    """The four terms at every step."""
    terms = jax.vmap(partial(step_terms, run))(run.steps.before, run.steps.xs, run.o_before)
    return void(broken_steps(run.steps), terms)
