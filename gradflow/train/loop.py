"""Many runs of one training side by side: seeds and learning rates, in one compiled program."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from gradflow import flow
from gradflow.cell import Cell, Key, Params
from gradflow.tasks.task import Batch, Task
from gradflow.train.clipping import Clipping, clip_stats, resolve_clipping
from gradflow.train.gradient import (
    Gradient,
    Regulariser,
    full_gradient,
    tbptt_gradient,
    with_regulariser,
)
from gradflow.train.model import init_model, predict
from gradflow.train.objective import batch_loss
from gradflow.train.optimisers import Optimiser
from gradflow.train.stream import check_stream

NEVER = -1
"""The update at which something happened that has not."""

NO_CLIPPING = resolve_clipping("none")

_INIT, _TRAIN, _EVALUATE = range(3)  # what is folded into a run's key: three independent streams

Means = Mapping[str, Float[Array, "*runs"]]
"""Averages over the updates of a chunk, by name."""


@dataclass(frozen=True)
class Training:
    """What is trained on what; a value, hashable, and so a static argument of `jax.jit`.

    Attributes:
      cell: The cell; its readout is linear.
      task: What it has to learn.
      optimiser: How.
      clipping: What keeps its gradients from being too large.
      regulariser: What is added to the loss, if anything.
      truncation: k1 and k2 of truncated backpropagation; None for the full gradient.
      batch_size: Sequences an update.
      eval_size: Fresh sequences an evaluation.

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
                raise ValueError(f"{name} is expected to be at least 1, got {getattr(self, name)}")
        if self.truncation is not None:
            check_stream(jnp.zeros((1, 1, 1)), *self.truncation)


class Runs(NamedTuple):
    """The state of runs side by side: every leaf has a leading axis of runs.

    Attributes:
      key: What a run's parameters and sequences are drawn from: its own, and the update's
        number folded in, so that a resumed run draws what it would have drawn.
      learning_rate: The run's own.
      params: As `gradflow.train.model.init_model` makes them; NaN throughout in a dead run.
      opt_state: What the optimiser keeps.
      update: How many updates have been made.
      solved_at: The update of the first evaluation that solved the task, or `NEVER`.
      died_at: The update that gave a loss or a parameter that is not finite, or `NEVER`.
    """

    key: Key
    learning_rate: Float[Array, "*runs"]
    params: Params
    opt_state: Any
    update: Int[Array, "*runs"]
    solved_at: Int[Array, "*runs"]
    died_at: Int[Array, "*runs"]

    @property
    def settled(self) -> Bool[Array, "*runs"]:
        """Whether a run has solved its task or died."""
        return (self.solved_at != NEVER) | (self.died_at != NEVER)


def begin(training: Training, keys: Key, learning_rates: Float[Array, " runs"]) -> Runs:
    """Draws the parameters of every run, from its key, for its learning rate.

    Raises:
      ValueError: If there is not one learning rate for each key.
    """
    if keys.shape != jnp.shape(learning_rates) or keys.ndim != 1:
        raise ValueError(
            f"one learning rate for each key is expected, got {jnp.shape(learning_rates)} for "
            f"keys of shape {keys.shape}"
        )
    return _beginner(training)(keys, jnp.asarray(learning_rates, float))


@functools.cache
def _beginner(training: Training) -> Callable[[Key, Array], Runs]:
    def one_run(key: Key, learning_rate: Array) -> Runs:
        output_size = training.task.output_size
        params = init_model(training.cell, output_size, jax.random.fold_in(key, _INIT))
        opt_state = transformation(training, learning_rate).init(params)
        zero, never = jnp.zeros((), jnp.int32), jnp.full((), NEVER, jnp.int32)
        return Runs(key, learning_rate, params, opt_state, zero, never, never)

    return flow.jit_to_run_once(jax.vmap(one_run))


def transformation(training: Training, learning_rate: Any) -> optax.GradientTransformation:
    """From gradients to updates, at a learning rate that may be traced."""
    return optax.chain(training.clipping.transform, training.optimiser.make(learning_rate))


@partial(jax.jit, static_argnums=(0, 2), donate_argnums=1)
def advance(training: Training, runs: Runs, num_updates: int) -> tuple[Runs, Means]:
    """Makes a number of updates in every run; ``runs`` is given up to what is returned.

    A run whose loss or parameters are no longer finite is NaN from there on, and disturbs none
    of the others.

    Returns:
      The runs, and the means over these updates of ``train_loss``, the task's loss;
      ``regulariser``, what was added to it; ``grad_norm``, the global norm of the gradient as it
      came; ``clip_share``, whether the clipping acted; and ``clip_cosine``, that of the angle
      between the gradient before and after.
    """

    def one_run(run: Runs) -> tuple[Runs, Means]:
        run, each = jax.lax.scan(partial(_update, training), run, length=num_updates)
        return run, jax.tree.map(partial(jnp.mean, axis=0), each)

    return jax.vmap(one_run)(runs)


def _stream(run: Runs, what: int) -> Key:
    return jax.random.fold_in(jax.random.fold_in(run.key, what), run.update)


def _update(training: Training, run: Runs, _: None) -> tuple[Runs, Means]:
    batch = training.task.sample(_stream(run, _TRAIN), training.batch_size)
    found = gradient(training, run.params, batch)
    transform = transformation(training, run.learning_rate)
    steps, opt_state = transform.update(found.value, run.opt_state, run.params)
    params = optax.apply_updates(run.params, steps)
    update = run.update + 1
    alive = (run.died_at == NEVER) & jnp.isfinite(found.loss + found.added) & _all_finite(params)
    params = jax.tree.map(lambda leaf: jnp.where(alive, leaf, jnp.nan), params)
    died_at = jnp.where(alive | (run.died_at != NEVER), run.died_at, update)
    acted = clip_stats(opt_state).acted - clip_stats(run.opt_state).acted
    run = run._replace(params=params, opt_state=opt_state, update=update, died_at=died_at)
    return run, {
        "train_loss": found.loss,
        "regulariser": found.added,
        "grad_norm": clip_stats(opt_state).norm_before,
        "clip_share": acted.astype(found.loss.dtype),
        "clip_cosine": clip_stats(opt_state).cosine,
    }


def gradient(training: Training, params: Params, batch: Batch) -> Gradient:
    """What one run's update goes by, before it is clipped."""
    kind, cell = training.task.loss, training.clipping.wrap(training.cell)
    if training.truncation is None:
        found = full_gradient(kind, cell, params, batch)
    else:
        k1, k2 = training.truncation
        found = tbptt_gradient(kind, cell, params, batch, k1=k1, k2=k2)
    if training.regulariser is None:
        return found
    return with_regulariser(found, training.regulariser, kind, training.cell, params, batch)


def _all_finite(tree: Any) -> Bool[Array, ""]:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


@partial(jax.jit, static_argnums=0)
def evaluate(training: Training, runs: Runs) -> tuple[Runs, Means]:
    """Tries every run on fresh sequences, and notes which have solved the task for the first time.

    Returns:
      The runs, and ``loss`` and ``share_correct``; both NaN for a dead run.
    """

    def one_run(run: Runs) -> tuple[Runs, Means]:
        task, is_dead = training.task, run.died_at != NEVER
        batch = task.fresh(_stream(run, _EVALUATE), training.eval_size)
        predictions = predict(training.cell, run.params, batch.inputs)
        loss = batch_loss(task.loss, predictions, batch)
        share = jnp.mean(task.correct(predictions, batch), dtype=loss.dtype)
        share = jnp.where(is_dead, jnp.nan, share)
        first = (run.solved_at == NEVER) & (share >= task.success)
        solved_at = jnp.where(first, run.update, run.solved_at)
        return run._replace(solved_at=solved_at), {"loss": loss, "share_correct": share}

    return jax.vmap(one_run)(runs)
