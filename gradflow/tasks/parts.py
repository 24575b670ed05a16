"""What the tasks share: where the loss sits, when an answer is right, and checks of options."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

from gradflow.tasks.task import Batch, Predictions

Criterion = Callable[[Predictions, Batch], Bool[Array, " batch"]]


def check_count(name: str, value: object, least: int) -> None:
    """Checks that an option of a task is an integer, and large enough.

    Raises:
      TypeError: If it is not an integer.
      ValueError: If it is below the least.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is expected to be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name} is expected to be at least {least}, got {value}")


def at_step(step: Int[Array, " batch"], num_steps: int) -> Float[Array, "steps batch"]:
    """1 at one step of each sequence, counted from 0, and 0 elsewhere."""
    return jax.nn.one_hot(step, num_steps, axis=0)


def at_every_step(target: Num[Array, "*target"], num_steps: int) -> Num[Array, "steps *target"]:
    """One target for a whole sequence, written at all of its steps; the weights choose one."""
    return jnp.broadcast_to(target, (num_steps, *target.shape))


def at_end(
    inputs: Float[Array, "steps batch input"],
    target: Float[Array, "batch output"] | Int[Array, " batch"],
) -> Batch:
    """A batch whose loss sits at the last step alone."""
    num_steps, size, _ = inputs.shape
    weights = at_step(jnp.full(size, num_steps - 1), num_steps)
    return Batch(inputs, at_every_step(target, num_steps), weights)


def classified(predictions: Predictions, batch: Batch) -> Bool[Array, " batch"]:
    """Whether the class of the largest prediction is right at every step that counts."""
    right = jnp.argmax(predictions, axis=-1) == batch.targets
    return jnp.all(right | (batch.weights == 0), axis=0)


def within(tolerance: float) -> Criterion:
    """A criterion: |prediction - target| < tolerance in every output at every step that counts."""

    def correct(predictions: Predictions, batch: Batch) -> Bool[Array, " batch"]:
        near = jnp.all(jnp.abs(predictions - batch.targets) < tolerance, axis=-1)
        return jnp.all(near | (batch.weights == 0), axis=0)

    return correct
