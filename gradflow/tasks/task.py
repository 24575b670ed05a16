"""What a task is: a value that draws batches and says when it is solved."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

from jaxtyping import Array, Bool, Float, Int, Num

from gradflow.cell import Key

Predictions: TypeAlias = Float[Array, "steps batch output"]


class Batch(NamedTuple):
    """Sequences, what is to be said at each of their steps, and which steps count.

    Attributes:
      inputs: x_1 ... x_T, time-major.
      targets: Real vectors for a squared loss, class indices for a cross-entropy; what stands
        at a step that does not count is never looked at.
      weights: 1 where the loss sits, 0 elsewhere.
    """

    inputs: Float[Array, "steps batch input"]
    targets: Float[Array, "steps batch output"] | Int[Array, "steps batch"]
    weights: Num[Array, "steps batch"]


@dataclass(frozen=True, eq=False)
class Stored:
    """Draws batches from the arrays of a finite data set; equal to nothing but itself.

    What a jitted function closes over is a constant of its program, of which text and compiler
    keep copies. `Task.over` is for a program that takes the arrays as an argument instead.

    Attributes:
      arrays: A pytree.
      draw: (arrays, key, batch size) -> Batch.
    """

    arrays: Any
    draw: Callable[[Any, Key, int], Batch]

    def __call__(self, key: Key, batch_size: int) -> Batch:
        """Draws a batch."""
        return self.draw(self.arrays, key, batch_size)


class Task(NamedTuple):
    """A supervised sequence task, drawn on the device: all its functions are pure and jit.

    Attributes:
      sample: (key, batch size) -> Batch.
      input_size: Channels of x.
      output_size: Numbers, or classes, that the net has to give at a step.
      num_steps: T.
      loss: ``"squared"`` (mean over the weighted steps of the sum of squares over outputs) or
        ``"cross_entropy"`` (mean over the weighted steps of the softmax cross-entropy, in nats).
      baseline: The loss of the best answer that remembers nothing, in the units of the loss.
      correct: (predictions, batch) -> which sequences are processed correctly, by the paper's
        own criterion.
      success: The share of fresh sequences that must be correct for the task to count as solved.
      held_out: Draws the batches of an evaluation where those of ``sample`` are not fresh: from
        the part of a finite data set that is not trained on.
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
        """What an evaluation draws its batches by."""
        return self.held_out or self.sample

    @property
    def arrays(self) -> dict[str, Any]:
        """What its batches are drawn from, where it is stored; nothing for a generated task."""
        ways = {"sample": self.sample, "held_out": self.held_out}
        return {name: way.arrays for name, way in ways.items() if isinstance(way, Stored)}

    def over(self, arrays: dict[str, Any]) -> "Task":
        """The same task, drawing from these arrays in place of its own `arrays`."""
        ways = {name: partial(getattr(self, name).draw, given) for name, given in arrays.items()}
        return self._replace(**ways)
