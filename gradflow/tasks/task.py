"""A task: a value that samples batches and defines the criterion of success."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

from gradflow.cell import Key

Predictions: TypeAlias = Float[Array, "steps batch output"]


class Batch(NamedTuple):
    """Input sequences, their targets, and the weight of each step in the loss.

    Attributes:
      inputs: x_1 ... x_T, time-major.
      targets: Real vectors for a squared loss, class indices for a cross-entropy. Targets at steps
        of weight 0 are not used.
      weights: 1 at the steps of the loss, 0 elsewhere.
    """

    inputs: Float[Array, "steps batch input"]
    targets: Float[Array, "steps batch output"] | Int[Array, "steps batch"]
    weights: Num[Array, "steps batch"]


@dataclass(frozen=True, eq=False)
class Stored:
    """Samples batches from the arrays of a finite data set. Instances are equal by identity.

    An array that a jitted function closes over is a constant of its program, and the compiler
    copies it. `Task.over` makes a task that takes the arrays as an argument of the program instead.

    Attributes:
      arrays: A pytree.
      draw: (arrays, key, batch size) -> Batch.
    """

    arrays: Any
    draw: Callable[[Any, Key, int], Batch]

    def __call__(self, key: Key, batch_size: int) -> Batch:
        """Samples a batch."""
        return self.draw(self.arrays, key, batch_size)


class Task(NamedTuple):
    """A supervised sequence task, sampled on the device: its functions are pure and can be jitted.

    Attributes:
      sample: (key, batch size) -> Batch.
      input_size: Size of x.
      output_size: Number of outputs, or of classes, at each step.
      num_steps: T.
      loss: ``"squared"`` (mean over the weighted steps of the sum of squares over outputs) or
        ``"cross_entropy"`` (mean over the weighted steps of the softmax cross-entropy, in nats).
      baseline: The loss of the best prediction without memory, in the units of the loss.
      correct: (predictions, batch) -> which sequences are processed correctly, by the criterion
        of the paper.
      success: The fraction of new sequences that must be correct for the task to count as solved.
      held_out: Samples the batches of an evaluation, for a finite data set: from the part that is
        not used in training.
    """

    sample: Callable[[Key, int], Batch]
    input_size: int
    output_size: int
    num_steps: int
    loss: Literal["squared", "cross_entropy"]
    baseline: float
    correct: Callable[[Predictions, Batch], Bool[Array, " batch"]]
    success: float
    held_out: Callable[[Key, int], Batch] | None = None

    @property
    def fresh(self) -> Callable[[Key, int], Batch]:
        """The function that samples the batches of an evaluation."""
        return self.held_out or self.sample

    @property
    def arrays(self) -> dict[str, Any]:
        """The arrays of a stored data set; empty for a generated task."""
        samplers = {"sample": self.sample, "held_out": self.held_out}
        return {name: s.arrays for name, s in samplers.items() if isinstance(s, Stored)}

    def over(self, arrays: dict[str, Any]) -> "Task":
        """Returns the same task with the given arrays in place of its own `arrays`."""
        samplers = {name: partial(getattr(self, name).draw, a) for name, a in arrays.items()}
        return self._replace(**samplers)


Criterion: TypeAlias = Callable[[Predictions, Batch], Bool[Array, " batch"]]
"""(predictions, batch) -> which sequences are processed correctly."""


def at_step(step: Int[Array, " batch"], num_steps: int) -> Float[Array, "steps batch"]:
    """Returns an array that is 1 at one step of each sequence, counted from 0, and 0 elsewhere."""
    return jax.nn.one_hot(step, num_steps, axis=0)


def at_every_step(target: Num[Array, "*target"], num_steps: int) -> Num[Array, " steps *target"]:
    """Repeats the target of a sequence at all of its steps; the weights select the step."""
    return jnp.broadcast_to(target, (num_steps, *target.shape))


def at_end(
    inputs: Float[Array, "steps batch input"],
    target: Float[Array, "batch output"] | Int[Array, " batch"],
) -> Batch:
    """Makes a batch with a loss at the last step only."""
    num_steps, size, _ = inputs.shape
    weights = at_step(jnp.full(size, num_steps - 1), num_steps)
    return Batch(inputs, at_every_step(target, num_steps), weights)


def at_weighted_steps(correct: Bool[Array, "steps batch"], batch: Batch) -> Bool[Array, " batch"]:
    """Checks for each sequence that all steps with a nonzero weight are correct."""
    return jnp.all(correct | (batch.weights == 0), axis=0)


def classified(predictions: Predictions, batch: Batch) -> Bool[Array, " batch"]:
    """Checks that the largest prediction is that of the target class at every weighted step."""
    return at_weighted_steps(jnp.argmax(predictions, axis=-1) == batch.targets, batch)


def within(tolerance: float) -> Criterion:
    """Makes the criterion |prediction - target| < tolerance in all outputs at weighted steps."""

    def correct(predictions: Predictions, batch: Batch) -> Bool[Array, " batch"]:
        is_near = jnp.all(jnp.abs(predictions - batch.targets) < tolerance, axis=-1)
        return at_weighted_steps(is_near, batch)

    return correct
