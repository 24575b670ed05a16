"""Truncated backpropagation through one window of a stream."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from gradflow.cell import Carry, Cell, Params
from gradflow.checks import check_integer
from gradflow.unroll import start, unroll

StepLosses = Callable[[Params, Float[Array, "steps batch hidden"], PyTree], Float[Array, " steps"]]
"""(params, outputs, extra) -> the loss of each step; ``extra`` is a pytree of further arrays, such
as targets and weights, with time along the leading axis."""


class Stream(NamedTuple):
    """The state of a stream between two windows.

    Attributes:
      carry: The carry at the first step through which the next window is backpropagated.
      inputs: The inputs of the k2 - k1 steps since then (none if k2 <= k1).
      is_real: False for steps before the stream began, which copy s_0.
    """

    carry: Carry
    inputs: Float[Array, "overlap batch input"]
    is_real: Bool[Array, "overlap batch"]


class WindowGradient(NamedTuple):
    """The loss of one window and its truncated gradient.

    Attributes:
      loss: The sum of the losses of its newest k1 steps.
      gradient: The truncated gradient of that sum, like the parameters.
    """

    loss: Float[Array, ""]
    gradient: Params


def begin_stream(
    cell: Cell, params: Params, inputs: Float[Array, "steps *batch input"], *, k1: int, k2: int
) -> Stream:
    """Returns the state of a stream before its first window: s_0 for every sequence.

    Args:
      cell: The cell.
      params: ``{"cell": ..., "readout": ...}``, or without a readout.
      inputs: Inputs of the stream; only their shape and type are used.
      k1: Steps from one window to the next.
      k2: Steps back.

    Raises:
      TypeError: If k1 or k2 is not an integer.
      ValueError: If one is below 1, or the inputs are not (T, B, input).
    """
    check_stream(inputs, k1, k2)
    overlap, batch = max(k2 - k1, 0), inputs.shape[1]
    carry = start(cell, params["cell"], inputs, None)
    kept = jnp.zeros((overlap, *inputs.shape[1:]), inputs.dtype)
    return Stream(carry, kept, jnp.zeros((overlap, batch), bool))


def window_gradient(
    losses: StepLosses,
    cell: Cell,
    params: Params,
    stream: Stream,
    window: tuple[Float[Array, "steps batch input"], PyTree],
    *,
    k2: int,
) -> tuple[Stream, WindowGradient]:
    """Computes the gradient of one window: state -> (state, gradient), pure, for `jax.lax.scan`.

    The steps that two windows share are run again with the current parameters, so that the gradient
    is that of the returned loss.

    Args:
      losses: Computes the loss of each step.
      cell: The cell.
      params: ``{"cell": ..., "readout": ...}``, or without a readout.
      stream: From `begin_stream`, or the window before.
      window: The inputs of the newest k1 steps, and the further arguments of ``losses`` for them.
      k2: Steps back, as given to `begin_stream`.
    """
    inputs, extra = window
    overlap, k1 = len(stream.inputs), len(inputs)
    held = max(k1 - k2, 0)
    stretch = jnp.concatenate([stream.inputs, inputs])
    is_real = jnp.concatenate([stream.is_real, jnp.ones(inputs.shape[:2], bool)])

    def total(params: Params) -> tuple[Array, Carry]:
        carry = jax.lax.stop_gradient(stream.carry)
        mask = is_real if overlap else None
        carries, outputs = unroll(cell, params["cell"], stretch, carry=carry, mask=mask)
        return jnp.sum(losses(params, outputs[overlap:], extra)), at(carries, k1)

    def total_held(params: Params) -> tuple[Array, Carry]:
        """The same for k2 < k1, with the first steps held fixed."""
        first = unroll(cell, params["cell"], inputs[:held], carry=stream.carry)
        first = jax.lax.stop_gradient(first)
        carry = at(first.carries, held)
        carries, outputs = unroll(cell, params["cell"], inputs[held:], carry=carry)
        outputs = jnp.concatenate([first.outputs, outputs])
        return jnp.sum(losses(params, outputs, extra)), at(carries, k1 - held)

    compute = jax.value_and_grad(total_held if held else total, has_aux=True)
    (loss, carry), gradient = compute(params)
    return Stream(carry, stretch[k1:], is_real[k1:]), WindowGradient(loss, gradient)


def at(carries: Carry, index: int) -> Carry:
    """Selects the carry s_index of a trajectory."""
    return jax.tree.map(lambda leaf: leaf[index], carries)


def check_stream(inputs: Array, k1: int, k2: int) -> None:
    """Checks the steps of a truncation, and the shape of the inputs.

    Raises:
      TypeError: If k1 or k2 is not an integer.
      ValueError: If one is below 1, or the inputs are not (T, B, input).
    """
    for name, value in (("k1", k1), ("k2", k2)):
        check_integer(name, value, 1)
    if inputs.ndim != 3 or not len(inputs):
        raise ValueError(
            f"Expected inputs of shape (T, B, input), got {inputs.shape}. Add a batch axis to a "
            "single sequence: inputs[:, None]."
        )
