"""∂c_t/∂c_{t-1} of an LSTM as the sum of its four paths."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gradflow.cell import Carry, Cell, Params
from gradflow.flow.lstm.form import (
    LSTMGates,
    Readout,
    check_equations,
    flattened,
    lstm_gates,
    measure_mismatch,
    on_vectors,
    tolerance,
)
from gradflow.flow.nonfinite import nonfinite_steps, set_nan
from gradflow.flow.trace import Trace, compiled, trace_of
from gradflow.numerics.exact_slopes import exact_slopes
from gradflow.unroll import Lengths, Mask

T = TypeVar("T")


class Decomposition(NamedTuple):
    """The four terms of ∂c_t/∂c_{t-1}, ``[t-1, row, column]`` each, dimensionless.

    Attributes:
      forget: diag(f_t), the cell state carried over.
      through_f: diag(c_{t-1}) ∂f_t/∂c_{t-1}, through the forget gate.
      through_i: diag(g_t) ∂i_t/∂c_{t-1}, through the input gate.
      through_g: diag(i_t) ∂g_t/∂c_{t-1}, through the candidate.
    """

    forget: Float[Array, "steps hidden hidden"]
    through_f: Float[Array, "steps hidden hidden"]
    through_i: Float[Array, "steps hidden hidden"]
    through_g: Float[Array, "steps hidden hidden"]


class LSTMTrace(NamedTuple):
    """The trajectory of an LSTM.

    Attributes:
      trace: The trajectory.
      gates: The gates at a step; at one that is padding, f = 1 and i = 0.
      readout: φ in h_t = o_t ∘ φ(c_t).
      o_before: ``o_before[t-1]`` is the o of h_{t-1}, and zero where h_{t-1} is h_0.
      is_real: Which steps are not padding.
    """

    trace: Trace
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
    """Computes the four terms of ∂c_t/∂c_{t-1} of an LSTM, one for each path, at every step t.

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

    The arguments are those common to all measurements (`gradflow.flow`), and

    Args:
      cell: A cell whose carry has fields h and c, with gates g, o, and i or f or both: without f,
        it is 1 (the LSTM of 1997); without i, it is 1 - f (coupled gates).
      readout: φ.

    Returns:
      The four terms; NaN at a step from or to a carry that is not finite. M_t of a padded step is
      the identity, in `forget`.

    Raises:
      ValueError: If the cell has not these fields or gates, or not these equations. (Under
        `jax.jit`, where no value is known, the result is NaN if it has not these equations.)

    Source: Hochreiter & Schmidhuber 1997, and Gers, Schmidhuber, Cummins 2000, whose truncated
    gradient is the first term alone.
    """
    given = {"carry": carry, "lengths": lengths, "mask": mask}
    return measure_lstm(all_terms, cell, params, inputs, readout, **given)


def measure_lstm(
    of_lstm: Callable[[LSTMTrace], T],
    cell: Cell,
    params: Params,
    inputs: Array,
    readout: Readout,
    **given: Any,
) -> T:
    """Measures something of the trajectory of a cell, after a check that it is an LSTM's."""
    lstm_gates(cell, padded=False)
    carry = flattened(given.pop("carry"))
    trace = trace_of(on_vectors(cell), params, inputs, carry=carry, **given)
    result, mismatch = _measured(of_lstm, readout, trace)
    check_equations(mismatch)
    return result


@compiled("of_lstm", "readout")
def _measured(
    of_lstm: Callable[[LSTMTrace], T], readout: Readout, trace: Trace
) -> tuple[T, Float[Array, ""]]:
    """The result, and how far the cell is from the equations."""
    is_real = jnp.ones(trace.num_steps, bool) if trace.mask is None else trace.mask
    gates = lstm_gates(trace.cell, padded=trace.mask is not None)
    values = jax.vmap(partial(gates, trace.params))(trace.before, trace.xs)
    values["o"] = _of_last_real(values["o"], is_real)
    o_before = jnp.concatenate([jnp.zeros_like(values["o"][:1]), values["o"][:-1]])
    result = of_lstm(
        LSTMTrace(trace, exact_slopes(gates), exact_slopes(readout), o_before, is_real)
    )
    mismatch = measure_mismatch(trace, readout, values, is_real)
    has_equations = ~(mismatch > tolerance(mismatch))
    return jax.tree.map(lambda leaf: jnp.where(has_equations, leaf, jnp.nan), result), mismatch


def _of_last_real(values: Array, is_real: Bool[Array, " steps"]) -> Array:
    """The values of the last real step up to each, and zero before the first."""
    last = jax.lax.cummax(jnp.where(is_real, jnp.arange(len(values)), -1))
    return jnp.where(last[:, None] >= 0, values[last], 0)


def step_terms(lstm: LSTMTrace, s: Carry, x: Any, o_before: Array) -> Decomposition:
    """Computes the terms at one step: the gates are differentiated along c, and h moves with it."""
    gates, push = jax.linearize(lambda s: lstm.gates(lstm.trace.params, s, x), s)

    def along(unit: Array) -> dict[str, Array]:
        _, response = jax.jvp(lstm.readout, (s.c,), (unit,))
        still = jax.tree.map(jnp.zeros_like, s)
        return push(still._replace(h=o_before * response, c=unit))

    by_c = jax.vmap(along, out_axes=-1)(jnp.eye(s.c.size, dtype=s.c.dtype))
    return Decomposition(
        forget=jnp.diag(gates["f"]),
        through_f=s.c[:, None] * by_c["f"],
        through_i=gates["g"][:, None] * by_c["i"],
        through_g=gates["i"][:, None] * by_c["g"],
    )


def all_terms(lstm: LSTMTrace) -> Decomposition:
    """Computes the four terms at every step."""
    along = lstm.trace.before, lstm.trace.xs, lstm.o_before
    return set_nan(nonfinite_steps(lstm.trace), jax.vmap(partial(step_terms, lstm))(*along))
