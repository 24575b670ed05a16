"""One reverse pass through a trajectory, in which nothing under- or overflows."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gradflow.cell import Carry, Cell, Params
from gradflow.flow.exact_slopes import exact_slopes
from gradflow.flow.steps import Steps, rescale, trajectory, with_exact_slopes, with_room
from gradflow.unroll import Mask, mask_cell

Loss = Callable[[Float[Array, "steps hidden"]], Float[Array, "*steps"]]
"""A scalar of the outputs h_1 ... h_T; for `component_map`, one number for each of them."""

Pull = Callable[[Carry, Any, Carry], tuple[Carry, Any]]
"""(s_{k-1}, x_k, ∂L/∂s_k) -> (its product with J_k, whatever is to be kept of the step)."""

NOTHING = -(2**30)
"""The exponent of an exact zero: below that of any number, however long the sequence."""


class Scaled(NamedTuple):
    """2^exponent · value, for a pytree; an exact zero where the exponent is `NOTHING`."""

    value: Carry
    exponent: Int[Array, "*n"]

    def log_scale(self) -> Float[Array, "*n"]:
        """The natural logarithm of 2^exponent."""
        return self.exponent * math.log(2)


class Recorded(NamedTuple):
    """A trajectory from s_0 to s_T, as in `Steps`, and ∂L/∂h_1 ... ∂L/∂h_T along it."""

    params: Params
    inputs: Float[Array, "steps input"]
    mask: Mask | None
    before: Carry
    last: Carry
    cotangents: Float[Array, "steps hidden"]


def carries_after(steps: Steps) -> Carry:
    """s_1 ... s_T along a leading axis."""
    return jax.tree.map(
        lambda before, last: jnp.concatenate([before, last[None]])[1:], steps.before, steps.last
    )


def record(loss: Loss, cell: Cell, arguments: tuple, *, per_step: bool = False) -> Recorded:
    """Runs the cell and differentiates the loss by the outputs.

    The loss is called here and nowhere in what `jax.jit` keeps: it may be another each time.

    Args:
      loss: The loss.
      cell: The cell.
      arguments: The parameters, the inputs, s_0 or None, and the mask of real steps or None.
      per_step: Whether the loss gives one number a step, the t-th of h_t alone.
    """
    params, inputs, _, mask = arguments
    check_loss(loss, cell, arguments, per_step=per_step)
    with jax.default_matmul_precision("highest"):
        before, last, outputs = forward(cell, arguments)
    cotangents = by_outputs(loss, outputs, per_step=per_step)
    return Recorded(params, inputs, mask, before, last, cotangents)


def check_loss(loss: Loss, cell: Cell, arguments: tuple, *, per_step: bool = False) -> None:
    """Traces the run and the loss, so that what does not fit is said before anything is compiled.

    Raises:
      TypeError: If the loss is not floating.
      ValueError: If it has not the shape that is expected.
    """
    total = partial(_total, loss, per_step)
    with jax.default_matmul_precision("highest"):
        jax.eval_shape(lambda arguments: total(forward(cell, arguments)[-1]), arguments)


def by_outputs(loss: Loss, outputs: Array, *, per_step: bool = False) -> Array:
    """∂L/∂h_1 ... ∂L/∂h_T."""
    with jax.default_matmul_precision("highest"):
        return jax.grad(exact_slopes(partial(_total, loss, per_step)))(outputs)


@partial(jax.jit, static_argnums=0)
def forward(cell: Cell, arguments: tuple) -> tuple[Carry, Carry, Array]:
    """s_0 ... s_{T-1}, s_T, and h_1 ... h_T."""
    params, inputs, carry, mask = arguments
    with jax.default_matmul_precision("highest"):
        steps = trajectory(cell, params, inputs, carry=carry, mask=mask)
        return steps.before, steps.last, jax.vmap(cell.hidden)(carries_after(steps))


def linearise(cell: Cell, recorded: Recorded) -> tuple[Steps, Scaled]:
    """The trajectory's steps, and (∂L/∂h_k) (∂h_k/∂s_k) for k = 1 ... T along a leading axis."""
    masked, xs = mask_cell(cell, recorded.inputs, None, recorded.mask)
    exact = with_exact_slopes(masked)
    steps = Steps(exact, recorded.params, recorded.before, recorded.last, xs)
    _, vjp = jax.vjp(jax.vmap(cell.hidden), carries_after(steps))
    # Where h is a part of the carry the rest is zero, and the compiler would work its scales out
    # before it runs, step by step: 16 s at T = 100,000.
    (direct,) = jax.lax.optimization_barrier(vjp(recorded.cotangents))
    return steps, jax.vmap(_normalise)(direct, jnp.zeros(len(recorded.cotangents), jnp.int32))


def _total(loss: Loss, per_step: bool, outputs: Array) -> Float[Array, ""]:
    value = loss(outputs)
    shape = outputs.shape[:1] if per_step else ()
    if not isinstance(value, float) and not (
        isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.floating)
    ):
        raise TypeError(
            f"a loss that returns a floating array is expected, got {value!r}: return the loss "
            "alone, as a float"
        )
    if jnp.shape(value) != shape:
        raise ValueError(
            f"a loss of shape {shape} is expected of outputs of shape {outputs.shape}, got shape "
            f"{jnp.shape(value)}: sum it over the axes that are left"
        )
    return jnp.sum(value)


def pull_back(
    steps: Steps, direct: Scaled, pull: Pull, later: Scaled | None = None
) -> tuple[Scaled, Scaled]:
    """One pass back through the steps, in which nothing under- or overflows.

    Args:
      steps: The steps.
      direct: (∂L/∂h_k) (∂h_k/∂s_k) for k = 1 ... T.
      pull: What is done at each step.
      later: What comes back to s_T from steps after it; by default nothing.

    Returns:
      ∂L/∂s_0, and what ``pull`` kept of the steps 1 ... T along a leading axis, with the exponent
      of the adjoint that it was given.
    """

    def body(later: Scaled, step: tuple[Carry, Any, Scaled]) -> tuple[Scaled, Scaled]:
        s, x, direct = step
        adjoint, exponent = _add(later, direct)
        adjoint, shift = with_room(adjoint)
        pulled, kept = pull(s, x, adjoint)
        return _normalise(pulled, exponent - shift), Scaled(kept, exponent - shift)

    nothing = Scaled(jax.tree.map(jnp.zeros_like, steps.last), jnp.asarray(NOTHING, jnp.int32))
    start = nothing if later is None else later
    return jax.lax.scan(body, start, (steps.before, steps.xs, direct), reverse=True)


def _normalise(value: Carry, exponent: Int[Array, ""]) -> Scaled:
    value, exponent = rescale(value, exponent)
    any_left = jnp.any(jnp.stack([jnp.any(leaf != 0) for leaf in jax.tree.leaves(value)]))
    return Scaled(value, jnp.where(any_left, exponent, NOTHING))


def _add(a: Scaled, b: Scaled) -> Scaled:
    top = jnp.maximum(a.exponent, b.exponent)
    one = jnp.ones((), jax.tree.leaves(a.value)[0].dtype)
    share_a, share_b = (
        jnp.where(scaled.exponent > NOTHING, jnp.ldexp(one, scaled.exponent - top), 0)
        for scaled in (a, b)
    )
    return Scaled(jax.tree.map(lambda x, y: share_a * x + share_b * y, a.value, b.value), top)


def log_norm(array: Float[Array, "..."], order: int | None = None) -> Float[Array, ""]:
    """log ‖array‖, none of whose squares is lost to underflow.

    The norm is the root of the sum of squares, or with order 2 that of a matrix, the spectral.
    """
    largest = jnp.max(jnp.abs(array))
    scale = jnp.where(largest > 0, largest, 1)
    return jnp.log(scale * jnp.linalg.norm(array / scale, ord=order))
