"""∂L/∂s_k for every step k from one reverse pass, as numbers and as log norms."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Carry, Cell, Params
from gradflow.flow.blocks import coordinates
from gradflow.flow.chunks import Runner
from gradflow.flow.nonfinite import nonfinite_from, set_nan
from gradflow.flow.reverse import Cotangents, Loss, linearise, pull_back, run_with_loss
from gradflow.flow.trace import Select, Trace, compiled, trace_of
from gradflow.numerics.scaling import Scaled, log_scaled, rescale
from gradflow.unroll import Lengths, Mask


def adjoints(
    cell: Cell,
    params: Params,
    inputs: Float[Array, "steps input"],
    *,
    loss: Loss,
    carry: Carry | None = None,
    lengths: Lengths | None = None,
    mask: Mask | None = None,
) -> Carry:
    """Computes ∂L/∂s_k for every k = 0 ... T: the total derivative of a loss of the outputs.

    With a_k = ∂L/∂s_k and h_k = hidden(s_k) for k = 1 ... T::

        a_k = a_{k+1} J_{k+1} + (∂L/∂h_k) (∂h_k/∂s_k)      a_T = (∂L/∂h_T) (∂h_T/∂s_T)

    a_k is the response of L to a change of s_k as it leaves step k. h_k is a part of s_k and
    changes with it, so that what L takes from h_k itself is in a_k. s_0 has no output:
    a_0 = a_1 J_1. The arguments are those common to all measurements (`gradflow.flow`), and

    Args:
      loss: Takes the outputs h_1 ... h_T, of shape (T, hidden), to a scalar. With padding, the
        outputs past the end repeat the last one.

    Returns:
      A pytree like the trajectory's carries, index = k, in units of the loss. What is smaller
      than the smallest float is zero here, and exact in `log_adjoint_norms`. NaN for every k
      before a step at which the trajectory is not finite.

    Raises:
      TypeError: If the loss is not floating.
      ValueError: If it is not a scalar, or the inputs are not one sequence.

    Source: Werbos 1990, doi:10.1109/5.58337 (ordered derivatives through time).
    """
    given = {"carry": carry, "lengths": lengths, "mask": mask}
    return adjoints_along(trace_of, cell, params, inputs, loss=loss, **given)


def adjoints_along(
    run: Runner, cell: Cell, params: Params, inputs: Array, *, loss: Loss, **given: Any
) -> Carry:
    """Computes `adjoints` along the path that the cell is run on."""
    return _along(run, _numbers, cell, params, inputs, loss=loss, **given)


def log_adjoint_norms(
    cell: Cell,
    params: Params,
    inputs: Float[Array, "steps input"],
    *,
    loss: Loss,
    source: str = "h",
    carry: Carry | None = None,
    lengths: Lengths | None = None,
    mask: Mask | None = None,
) -> Float[Array, " steps_and_one"]:
    """Computes log ‖∂L/∂source_k‖ for every k = 0 ... T, however small it is.

    The norm is Euclidean, of a block of `adjoints`, which also explains the loss: the
    rest of s_k is held fixed. The adjoint is kept as a vector and an integer power of two.

    Returns:
      Natural logarithms, index = k. Exactly -inf where nothing of the loss depends on the block.

    Raises:
      TypeError: If the loss is not floating.
      ValueError: If it is not a scalar, the carry has no such block, or the inputs are not one
        sequence.
    """
    given = {"carry": carry, "lengths": lengths, "mask": mask}
    return log_adjoint_norms_along(
        trace_of, cell, params, inputs, loss=loss, source=source, **given
    )


def log_adjoint_norms_along(
    run: Runner, cell: Cell, params: Params, inputs: Array, *, loss: Loss, source: str, **given: Any
) -> Float[Array, " steps_and_one"]:
    """Computes `log_adjoint_norms` along the path that the cell is run on."""
    finish = partial(_log_norms, coordinates(cell, source))
    return _along(run, finish, cell, params, inputs, loss=loss, **given)


def _along(run: Runner, finish: Any, cell: Cell, params: Any, inputs: Any, **given: Any) -> Any:
    path, cotangents = run_with_loss(run, cell, params, inputs, **given)

    def through(later: Scaled | None, trace: Trace, cotangents: Cotangents) -> tuple[Scaled, Any]:
        first, rest = _through(later, trace, cotangents)
        return first, finish(rest)

    first, rest = path.sweep(through, None, cotangents, backward=True)
    first = finish(jax.tree.map(lambda leaf: leaf[None], first))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), first, rest)


@compiled()
def _through(later: Scaled | None, trace: Trace, cotangents: Cotangents) -> tuple[Scaled, Scaled]:
    """Computes ∂L/∂s_0, and ∂L/∂s_1 ... ∂L/∂s_T, from the adjoint that later steps give s_T."""

    def pull(s: Carry, x: Any, adjoint: Carry) -> tuple[Carry, Carry]:
        _, vjp = jax.vjp(lambda s: trace.step(trace.params, s, x), s)
        return vjp(adjoint)[0], adjoint

    first, rest = pull_back(trace, linearise(trace, cotangents), pull, later)
    bad = nonfinite_from(trace)
    return (
        first._replace(value=set_nan(bad[0], first.value)),
        rest._replace(value=set_nan(bad[1:], rest.value)),
    )


@jax.jit
def _numbers(adjoints: Scaled) -> Carry:
    return jax.vmap(lambda v, e: jax.tree.map(lambda leaf: jnp.ldexp(leaf, e), v))(*adjoints)


def _log_norms(select: Select, adjoints: Scaled) -> Float[Array, " k"]:
    def log_norm(value: Carry, exponent: Array) -> Array:
        part, exponent = rescale(select(value), exponent)
        return log_scaled(jnp.linalg.norm(part), exponent)

    return jax.vmap(log_norm)(*adjoints)
