"""What a task is: a value that draws batches and says when it is solved."""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

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
