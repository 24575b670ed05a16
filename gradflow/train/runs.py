"""Many runs of one training side by side: seeds, learning rates and thresholds of clipping.

The runs train on fresh sequences of a task. They are one vmapped program, whose runs, or the batch
of a single one, are distributed over the devices.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gradflow.cell import Cell, Key, Params
from gradflow.cells.dropout import with_noise
from gradflow.devices import map_runs, place_runs, to_first_device
from gradflow.tasks.task import Batch
from gradflow.train.clip_record import clip_stats, norm_ratio
from gradflow.train.descent import Descent, step
from gradflow.train.model import init_model, predict
from gradflow.train.objective import batch_loss
from gradflow.train.training import Training, gradient, transformation

NEVER = -1
"""The update of an event that has not happened."""

# Folded into a run's key: the independent streams of its random numbers.
_INIT, _TRAIN, _EVALUATE, _NOISE = range(4)

Means = Mapping[str, Float[Array, "*runs"]]
"""Averages over updates, by name."""


class Runs(NamedTuple):
    """The state of runs side by side: every leaf has a leading axis of runs.

    Attributes:
      key: The run's own key. The number of the update is folded into it for each batch, so that
        a resumed run samples the same sequences as an uninterrupted one.
      learning_rate: The run's own learning rate.
      clip_threshold: The run's own threshold of the clipping.
      params: As `gradflow.train.model.init_model` makes them; all NaN once the run has diverged.
      opt_state: The state of the optimiser.
      update: How many updates have been made.
      solved_at: The update of the first evaluation that solved the task, or `NEVER`.
      died_at: The update with the first loss or parameter that is not finite, or `NEVER`.
    """

    key: Key
    learning_rate: Float[Array, "*runs"]
    clip_threshold: Float[Array, "*runs"]
    params: Params
    opt_state: Any
    update: Int[Array, "*runs"]
    solved_at: Int[Array, "*runs"]
    died_at: Int[Array, "*runs"]

    @property
    def settled(self) -> Bool[Array, "*runs"]:
        """Whether a run has solved its task or diverged."""
        return (self.solved_at != NEVER) | (self.died_at != NEVER)


def begin(
    training: Training,
    keys: Key,
    learning_rates: Float[Array, " runs"],
    clip_thresholds: Array | None = None,
) -> Runs:
    """Initialises every run from its own key, learning rate and threshold.

    Args:
      training: What is trained on what.
      keys: One per run.
      learning_rates: One per run.
      clip_thresholds: One per run; by default the threshold of the training's clipping.

    Raises:
      ValueError: If there is not one learning rate and one threshold for each key.
    """
    if clip_thresholds is None:
        clip_thresholds = jnp.full(keys.shape, training.clipping.threshold)
    for name, values in (("learning rate", learning_rates), ("threshold", clip_thresholds)):
        if keys.shape != jnp.shape(values) or keys.ndim != 1:
            raise ValueError(
                f"Expected one {name} for each key, got {name}s of shape {jnp.shape(values)} for "
                f"keys of shape {keys.shape}."
            )
    hyper = (jnp.asarray(values, float) for values in (learning_rates, clip_thresholds))
    return _beginner(training)(keys, *hyper)


@functools.cache
def _beginner(training: Training) -> Callable[[Key, Array, Array], Runs]:
    def one_run(key: Key, learning_rate: Array, clip_threshold: Array) -> Runs:
        output_size = training.task.output_size
        params = init_model(training.cell, output_size, jax.random.fold_in(key, _INIT))
        opt_state = transformation(training, learning_rate, clip_threshold).init(params)
        zero, never = jnp.zeros((), jnp.int32), jnp.full((), NEVER, jnp.int32)
        return Runs(key, learning_rate, clip_threshold, params, opt_state, zero, never, never)

    return jax.jit(jax.vmap(one_run))


def advance(training: Training, runs: Runs, num_updates: int) -> tuple[Runs, Means]:
    """Makes a number of updates in every run; the memory of ``runs`` is reused.

    The runs, or the sequences of a single run, are distributed over the devices. A run whose loss
    or parameters are no longer finite is set to NaN; the other runs are not affected.

    Returns:
      The runs, and the means over these updates of ``train_loss``, the loss of the task;
      ``regulariser``, the value that was added to it; ``grad_norm``, the global norm of the
      gradient before clipping; ``clip_share``, the fraction of updates at which the clipping
      acted; ``clip_cosine``, the cosine of the angle between the gradients before and after
      clipping; and ``clip_ratio``, the ratio of their norms.
    """
    found = _advance(training, runs, num_updates, training.task.arrays)
    return to_first_device(found) if len(runs.update) == 1 else found


@partial(jax.jit, static_argnums=(0, 2), donate_argnums=1)
def _advance(
    training: Training, runs: Runs, num_updates: int, arrays: dict[str, Any]
) -> tuple[Runs, Means]:
    advance_one = partial(_advance_one, _over(training, arrays), num_updates)
    return map_runs(advance_one, sequential=False)(runs)


def _advance_one(training: Training, num_updates: int, run: Runs) -> tuple[Runs, Means]:
    run, each = jax.lax.scan(partial(_update, training), run, length=num_updates)
    return run, jax.tree.map(partial(jnp.mean, axis=0), each)


def placed(training: Training, runs: Runs) -> Runs:
    """Places the runs where `advance` leaves them, which avoids a second compilation."""
    return place_runs(partial(_advance_one, training, 1), runs)


def _over(training: Training, arrays: dict[str, Any]) -> Training:
    """The training with its task's arrays as arguments of the program instead of constants."""
    return replace(training, task=training.task.over(arrays))


def _stream(run: Runs, what: int) -> Key:
    return jax.random.fold_in(jax.random.fold_in(run.key, what), run.update)


def _update(training: Training, run: Runs, _: None) -> tuple[Runs, Means]:
    batch = training.task.sample(_stream(run, _TRAIN), training.batch_size)
    drawn, batch = _with_noise(training.cell, _stream(run, _NOISE), run.params, batch)
    found = gradient(training, drawn, batch, run.clip_threshold)
    transform = transformation(training, run.learning_rate, run.clip_threshold)
    params, opt_state = step(
        transform, Descent(drawn, run.opt_state), found.value, unclipped=found.unclipped
    )
    update = run.update + 1
    alive = (run.died_at == NEVER) & jnp.isfinite(found.loss + found.added) & _all_finite(params)
    params = jax.tree.map(lambda leaf: jnp.where(alive, leaf, jnp.nan), params)
    died_at = jnp.where(alive | (run.died_at != NEVER), run.died_at, update)
    stats, acted = clip_stats(opt_state), clip_stats(run.opt_state).acted
    run = run._replace(params=params, opt_state=opt_state, update=update, died_at=died_at)
    return run, {
        "train_loss": found.loss,
        "regulariser": found.added,
        "grad_norm": stats.norm_before,
        "clip_share": (stats.acted - acted).astype(found.loss.dtype),
        "clip_cosine": stats.cosine,
        "clip_ratio": norm_ratio(stats),
    }


def _with_noise(cell: Cell, key: Key | None, params: Params, batch: Batch) -> tuple[Params, Batch]:
    """The model and a batch with freshly sampled noise, or without noise if there is no key."""
    own, inputs = with_noise(cell, key, params["cell"], batch.inputs)
    return params | {"cell": own}, batch._replace(inputs=inputs)


def _all_finite(tree: Any) -> Bool[Array, ""]:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def evaluate(training: Training, runs: Runs) -> tuple[Runs, Means]:
    """Evaluates every run on fresh sequences, without dropout or other noise.

    Returns:
      The runs, where those that solve the task for the first time have their ``solved_at`` set; and
      ``loss`` and ``accuracy``, the fraction of correct sequences. Both are NaN for a diverged run.
    """
    return _evaluate(training, runs, training.task.arrays)


@partial(jax.jit, static_argnums=0)
def _evaluate(training: Training, runs: Runs, arrays: dict[str, Any]) -> tuple[Runs, Means]:
    training = _over(training, arrays)

    def one_run(run: Runs) -> tuple[Runs, Means]:
        task, is_dead = training.task, run.died_at != NEVER
        batch = task.fresh(_stream(run, _EVALUATE), training.eval_size)
        params, batch = _with_noise(training.cell, None, run.params, batch)
        predictions = predict(training.cell, params, batch.inputs)
        loss = batch_loss(task.loss, predictions, batch)
        accuracy = jnp.mean(task.correct(predictions, batch), dtype=loss.dtype)
        accuracy = jnp.where(is_dead, jnp.nan, accuracy)
        first = (run.solved_at == NEVER) & (accuracy >= task.success)
        solved_at = jnp.where(first, run.update, run.solved_at)
        return run._replace(solved_at=solved_at), {"loss": loss, "accuracy": accuracy}

    return map_runs(one_run, sequential=False)(runs)
