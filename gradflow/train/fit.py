"""A training from beginning to end: chunks of updates, evaluations, probes, and when to stop."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradflow.train.keeper import Keeper
from gradflow.train.loop import Runs, Training, advance, evaluate, placed
from gradflow.train.probes import Probing, probe, probe_shapes

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Schedule:
    """How long, and how often one looks.

    Attributes:
      num_updates: The most updates of a run.
      eval_every: Updates between two evaluations, the first of which is before any.
      probe_every: Updates between two probings, a multiple of ``eval_every``; None for that.
      early_stop: Whether to stop when every run has solved its task or died.

    Raises:
      ValueError: If a number is below 1, or the three do not divide each other.
    """

    num_updates: int
    eval_every: int
    probe_every: int | None = None
    early_stop: bool = True

    def __post_init__(self) -> None:
        probe_every = self.eval_every if self.probe_every is None else self.probe_every
        for name, number, divisor in (
            ("eval_every", self.eval_every, 1),
            ("num_updates", self.num_updates, self.eval_every),
            ("probe_every", probe_every, self.eval_every),
        ):
            if number < 1 or number % divisor:
                of = f"multiple of eval_every={divisor} above zero" if divisor > 1 else "number > 0"
                raise ValueError(f"{name} is expected to be a {of}, got {number}")

    @property
    def evaluations(self) -> np.ndarray:
        """The updates after which there is an evaluation."""
        return np.arange(0, self.num_updates + 1, self.eval_every)

    @property
    def probings(self) -> np.ndarray:
        """The updates after which there is a probing."""
        return np.arange(0, self.num_updates + 1, self.probe_every or self.eval_every)


class Progress(NamedTuple):
    """How far a training is.

    Attributes:
      runs: The state of the runs; after the next evaluation it is gone, for its memory is reused.
      update: How many updates have been made.
      metrics: By name, (evaluations, runs), NaN where not reached: ``loss`` and ``share_correct``
        on fresh sequences, and the means over the updates since the evaluation before, such as
        ``train_loss``.
      probes: By name, (probings, runs, ...), NaN where not reached.
    """

    runs: Runs
    update: int
    metrics: Arrays
    probes: Arrays


def fit(
    training: Training,
    runs: Runs,
    schedule: Schedule,
    *,
    probing: Probing | None = None,
    keeper: Keeper | None = None,
) -> Iterator[Progress]:
    """Trains the runs and yields after every evaluation; the last one yielded is the end.

    With a keeper the training goes on from its last checkpoint, and draws and computes from
    there on what it would have drawn and computed: the first yielded is where it goes on.

    Args:
      training: What is trained on what.
      runs: As `gradflow.train.loop.begin` makes them; given up to the training.
      schedule: How long.
      probing: What is measured along the way, if anything.
      keeper: Where the training is kept, if anywhere.

    Raises:
      ValueError: If the cell lacks what a probe measures, or the keeper has another training.
    """
    look = partial(_look, training, schedule, probing, keeper)
    progress = _empty(training, placed(training, runs), schedule, probing)
    stored = None if keeper is None else keeper.restore(_to_arrays(progress))
    if stored is None:
        progress = look(progress, {}, {})
    else:
        progress = _from_arrays(training, progress, stored)
    yield progress
    while not _is_over(progress, schedule):
        start = time.perf_counter()
        runs, means = advance(training, progress.runs, schedule.eval_every)
        jax.block_until_ready(means)
        seconds = {"train_seconds": time.perf_counter() - start}
        update = progress.update + schedule.eval_every
        progress = look(progress._replace(runs=runs, update=update), means, seconds)
        yield progress


def _is_over(progress: Progress, schedule: Schedule) -> bool:
    settled = schedule.early_stop and bool(jnp.all(progress.runs.settled))
    return settled or progress.update >= schedule.num_updates


def _look(
    training: Training,
    schedule: Schedule,
    probing: Probing | None,
    keeper: Keeper | None,
    progress: Progress,
    means: Mapping[str, Any],
    seconds: Mapping[str, float],
) -> Progress:
    """Evaluates and probes, enters both in the log, and keeps it."""
    clock = _Clock(seconds)
    with clock.measure("evaluate_seconds"):
        runs, found = evaluate(training, progress.runs)
        row = jax.device_get({**found, **means})
    metrics = _entered(progress.metrics, progress.update // schedule.eval_every, row)
    probes, every = progress.probes, schedule.probe_every or schedule.eval_every
    if probing is not None and progress.update % every == 0:
        with clock.measure("probe_seconds"):
            values = probe(training.cell, training.task, runs.params, probing)
        probes = _entered(probes, progress.update // every, values)
    progress = Progress(runs, progress.update, metrics, probes)
    if keeper is not None:
        keeper.keep(progress.update, _to_arrays(progress), row, clock.seconds)
    return progress


class _Clock:
    def __init__(self, seconds: Mapping[str, float]) -> None:
        self.seconds = dict(seconds)

    @contextlib.contextmanager
    def measure(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start


def _entered(log: Arrays, index: int, row: Mapping[str, Any]) -> Arrays:
    log = {name: array.copy() for name, array in log.items()}
    for name, values in row.items():
        log[name][index] = values
    return log


def _empty(training: Training, runs: Runs, schedule: Schedule, probing: Probing | None) -> Progress:
    """The progress before anything is known, with room for all that there will be."""
    chunk = jax.eval_shape(lambda runs: advance(training, runs, schedule.eval_every), runs)
    found = jax.eval_shape(partial(evaluate, training), runs)
    metrics = {**found[1], **chunk[1]}
    probes = {}
    if probing is not None:
        probes = probe_shapes(training.cell, training.task, runs.params, probing)
    return Progress(
        runs,
        0,
        {name: _room(schedule.evaluations, like.shape) for name, like in metrics.items()},
        {name: _room(schedule.probings, like.shape) for name, like in probes.items()},
    )


def _room(times: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.full((len(times), *shape), np.nan)


def _to_arrays(progress: Progress) -> Any:
    """All of the progress that is not known beforehand: the keys are, and no file takes them."""
    runs, update = progress.runs._replace(key=None), np.int64(progress.update)
    return jax.device_get(progress._replace(runs=runs, update=update))


def _from_arrays(training: Training, progress: Progress, stored: Progress) -> Progress:
    runs = jax.tree.map(jnp.array, stored.runs)._replace(key=progress.runs.key)
    runs = placed(training, runs)
    return stored._replace(runs=runs, update=int(stored.update))
