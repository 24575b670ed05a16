"""The description of a training on a task, and the gradient of one update by it."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import optax

from gradflow.cell import Cell, Params
from gradflow.tasks.task import Batch, Task
from gradflow.train.clipping import Clipping, resolve_clipping
from gradflow.train.gradient import (
    Gradient,
    Regulariser,
    adjoint_clipped,
    full_gradient,
    tbptt_gradient,
    with_regulariser,
)
from gradflow.train.optimisers import Optimiser
from gradflow.train.stream import check_stream

NO_CLIPPING = resolve_clipping("none")


@dataclass(frozen=True)
class Training:
    """What is trained on what; a value, hashable, and so a static argument of `jax.jit`.

    Attributes:
      cell: The cell; its readout is linear.
      task: The task.
      optimiser: The optimiser; its learning rate is that of each run.
      clipping: The clipping of the gradient or of the adjoints.
      regulariser: The term that is added to the loss, if any.
      truncation: k1 and k2 of truncated backpropagation; None for the full gradient.
      batch_size: Sequences per update.
      eval_size: Fresh sequences per evaluation.

    Raises:
      TypeError: If k1 or k2 is not an integer.
      ValueError: If a size, k1 or k2 is below 1.
    """

    cell: Cell
    task: Task
    optimiser: Optimiser
    clipping: Clipping = NO_CLIPPING
    regulariser: Regulariser | None = None
    truncation: tuple[int, int] | None = None
    batch_size: int = 32
    eval_size: int = 256

    def __post_init__(self) -> None:
        for name in ("batch_size", "eval_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"Expected {name} to be at least 1, got {getattr(self, name)}.")
        if self.truncation is not None:
            check_stream(jnp.zeros((1, 1, 1)), *self.truncation)


def transformation(
    training: Training, learning_rate: Any, clip_threshold: Any
) -> optax.GradientTransformationExtraArgs:
    """Returns the transformation of gradients to updates; both arguments may be traced."""
    clip = training.clipping.make(clip_threshold)
    return optax.chain(clip, training.optimiser.make(learning_rate))


def gradient(
    training: Training, params: Params, batch: Batch, clip_threshold: Any = None
) -> Gradient:
    """Computes the loss and the gradient of one update of one run.

    Clipping inside the recurrence is in it; other clipping comes after it.
    """
    kind, cell, clipping = training.task.loss, training.cell, training.clipping
    # A regulariser is a function of the whole batch: every device would compute all of it, and
    # decompositions on several devices would wait for each other.
    shared = training.regulariser is None

    def compute(cell: Cell, params: Params) -> Gradient:
        if training.truncation is None:
            return full_gradient(kind, cell, params, batch, shared=shared)
        k1, k2 = training.truncation
        return tbptt_gradient(kind, cell, params, batch, k1=k1, k2=k2, shared=shared)

    if clipping.wrap is None:
        found = compute(cell, params)
    else:
        threshold = clipping.threshold if clip_threshold is None else clip_threshold
        found = adjoint_clipped(compute, cell, clipping.wrap(cell, threshold), params)
    if training.regulariser is None:
        return found
    return with_regulariser(found, training.regulariser, kind, cell, params, batch)
