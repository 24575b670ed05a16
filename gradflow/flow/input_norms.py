"""The norm of ∂h_T/∂x_k, the derivative by the input of step k, for every lag T - k."""

from functools import partial
from typing import Any

import jax
from jaxtyping import Array, Float

from gradflow.cell import Carry, Cell, Params
from gradflow.flow.blocks import block
from gradflow.flow.chunks import Runner
from gradflow.flow.nonfinite import nonfinite_from, set_nan
from gradflow.flow.trace import Trace, compiled, trace_of
from gradflow.numerics.scaling import Scaled, log_norm, rescale, scaled, with_room
from gradflow.unroll import Lengths, Mask


def log_input_norms(
    cell: Cell,
    params: Params,
    inputs: Float[Array, "steps input"],
    *,
    target: str = "h",
    carry: Carry | None = None,
    lengths: Lengths | None = None,
    mask: Mask | None = None,
) -> Float[Array, " steps"]:
    """Computes log ‖∂target_T/∂x_k‖, Frobenius, for every lag T - k = 0 ... T - 1.

    The step Jacobians reach back to s_k, and the last factor is the step's derivative by x_k::

        ∂target_T/∂x_k = S_target · J_T ... J_{k+1} · ∂step(s_{k-1}, x_k)/∂x_k

    The arguments are those common to all measurements (`gradflow.flow`).

    Returns:
      Log norms in nats per unit of the inputs, index = lag. Exactly -inf where the derivative is
      exactly zero, as by the input of a padded step; NaN from the lag at which a NaN or an infinity
      of the trajectory enters.

    Raises:
      ValueError: For an unknown block, or inputs that are not one sequence.
    """
    given = {"carry": carry, "lengths": lengths, "mask": mask}
    return log_input_norms_along(trace_of, cell, params, inputs, target=target, **given)


def log_input_norms_along(
    run: Runner, cell: Cell, params: Params, inputs: Array, *, target: str, **given: Any
) -> Float[Array, " steps"]:
    """Computes `log_input_norms` along the path that the cell is run on."""
    block(cell, target)
    path = run(cell, params, inputs, **given)
    return path.sweep(partial(_through, target), None, backward=True)[1][::-1]


@compiled("target")
def _through(
    target: str, state: Scaled | None, trace: Trace
) -> tuple[Scaled, Float[Array, " steps"]]:
    def back(product: Scaled, at: tuple[Carry, Any]) -> tuple[Scaled, Array]:
        s, x = at
        value, *is_real = x if isinstance(x, tuple) else (x,)

        def step(s: Carry, value: Array) -> Carry:
            return trace.step(trace.params, s, (value, *is_real) if is_real else value)

        enlarged, shift = with_room(product.value)
        by_s, by_x = jax.vmap(jax.vjp(step, s, value)[1])(enlarged)
        # Each with a scale of its own, so that neither is lost beside the other.
        by_x = rescale(by_x, product.exponent - shift)
        log_size = log_norm(by_x.value) + by_x.log_scale()
        return rescale(by_s, product.exponent - shift), log_size

    if state is None:
        state = scaled(trace.unit_rows(block(trace.cell, target)))
    state, log_norms = jax.lax.scan(back, state, (trace.before, trace.xs), reverse=True)
    return state, set_nan(nonfinite_from(trace)[: len(log_norms)], log_norms)
