"""The training driver: updates, evaluations, probes, checkpoints, and when to stop.

It knows no task. What is trained is a `Source`: an initial state, which is any pytree, and
functions of it. `gradflow.train.fresh.fresh_sequences` makes one for tasks that generate their
sequences, `gradflow.train.finite.epochs` one for finite data, and a study may make its own.
"""

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from gradflow.train.keeper import Keeper

Arrays = dict[str, np.ndarray]

Row = Mapping[str, Any]
"""Numbers or arrays of one evaluation, by name."""


@dataclass(frozen=True)
class Schedule:
    """How long a training takes, and how often it is evaluated and probed.

    Attributes:
      num_updates: The largest number of updates; of a training by epochs, of epochs.
      eval_every: Updates between two evaluations. The first evaluation is before any update.
      probe_every: Updates between two probings, a multiple of ``eval_every``; None for the same.
      early_stop: Whether the training may end before, by the rule of its source.

    Raises:
      ValueError: If a number is below 1, or the three do not divide each other.
    """

    num_updates: int
    eval_every: int = 1
    probe_every: int | None = None
    early_stop: bool = True

    def __post_init__(self) -> None:
        every = self.eval_every
        if every < 1:
            raise ValueError(f"Expected eval_every to be at least 1, got {every}.")
        for name, number in (("num_updates", self.num_updates), ("probe_every", self._probe_every)):
            if number < 1 or number % every:
                raise ValueError(
                    f"Expected {name} to be a positive multiple of eval_every={every}, got "
                    f"{number}. Choose {name}={max(number // every, 1) * every} or another one."
                )

    @property
    def _probe_every(self) -> int:
        return self.eval_every if self.probe_every is None else self.probe_every

    @property
    def evaluations(self) -> np.ndarray:
        """The updates after which there is an evaluation."""
        return np.arange(0, self.num_updates + 1, self.eval_every)

    @property
    def probings(self) -> np.ndarray:
        """The updates after which there is a probing."""
        return np.arange(0, self.num_updates + 1, self._probe_every)


class Progress(NamedTuple):
    """How far a training is.

    Attributes:
      state: The state; its arrays are deleted by the next updates, which reuse their memory.
      update: How many updates have been made.
      metrics: By name, (evaluations, ...), NaN where not reached.
      probes: By name, (probings, ...), NaN where not reached.
    """

    state: Any
    update: int
    metrics: Arrays
    probes: Arrays


def _never(progress: Progress) -> bool:
    del progress
    return False


class Source(NamedTuple):
    """What is trained: a state and functions of it.

    Attributes:
      state: The initial state, a pytree of arrays and numbers; given up to the training.
      advance: (state, number) -> (state, row): makes so many updates; the row holds means over
        them. It may reuse the memory of the state that it gets.
      evaluate: state -> (state, row).
      averages: The names and shapes of the row of ``advance``, which the first evaluation lacks.
      is_over: Whether to stop early, asked after each evaluation.
      probe: state -> row, if anything is probed.
    """

    state: Any
    advance: Callable[[Any, int], tuple[Any, Row]]
    evaluate: Callable[[Any], tuple[Any, Row]]
    averages: Mapping[str, tuple[int, ...]]
    is_over: Callable[[Progress], bool] = _never
    probe: Callable[[Any], Row] | None = None


def fit(
    source: Source,
    schedule: Schedule,
    *,
    folder: Path | None = None,
    identity: Mapping[str, Any] | None = None,
) -> Generator[Progress, None, None]:
    """Trains, and yields the progress after every evaluation; the last one yielded is the end.

    With a folder the training resumes from its last checkpoint, with the same random numbers and
    the same arithmetic as if it had never been interrupted: the first progress yielded is that of
    the checkpoint.

    Args:
      source: What is trained.
      schedule: How long.
      folder: Where metrics and checkpoints are kept (`gradflow.train.keeper`), if anywhere.
      identity: The fields that distinguish this training from others, as JSON holds them.

    Raises:
      ValueError: If the folder holds the checkpoints of another training.
      OSError: If another process is using the folder, or the folder cannot be written to.
    """
    keeping = contextlib.nullcontext() if folder is None else Keeper(folder, identity or {})
    with keeping as keeper:
        look = partial(_look, source, schedule, keeper)
        stored = None if keeper is None else keeper.restore(source.state)
        if stored is None:
            rooms = {name: _room(schedule.evaluations, s) for name, s in source.averages.items()}
            progress = look(Progress(source.state, 0, rooms, {}), {}, {})
        else:
            progress = Progress(stored.state, stored.update, **stored.logs)
        yield progress
        while not _is_over(source, schedule, progress):
            clock = _Clock()
            with clock.measure("train_seconds"):
                state, means = source.advance(progress.state, schedule.eval_every)
                jax.block_until_ready(means)
            update = progress.update + schedule.eval_every
            progress = look(progress._replace(state=state, update=update), means, clock.seconds)
            yield progress


def _is_over(source: Source, schedule: Schedule, progress: Progress) -> bool:
    is_settled = schedule.early_stop and source.is_over(progress)
    return is_settled or progress.update >= schedule.num_updates


def _look(
    source: Source,
    schedule: Schedule,
    keeper: Keeper | None,
    progress: Progress,
    means: Row,
    seconds: Mapping[str, float],
) -> Progress:
    """Evaluates and probes, enters both in the logs, and saves a checkpoint."""
    clock, update = _Clock(seconds), progress.update
    with clock.measure("evaluate_seconds"):
        state, found = source.evaluate(progress.state)
        row = jax.device_get({**found, **means})
    metrics = _entered(progress.metrics, schedule.evaluations, update, row)
    probes = progress.probes
    if source.probe is not None and update in schedule.probings:
        with clock.measure("probe_seconds"):
            probes = _entered(probes, schedule.probings, update, source.probe(state))
    progress = Progress(state, update, metrics, probes)
    if keeper is not None:
        keeper.keep(update, state, {"metrics": metrics, "probes": probes}, row, clock.seconds)
    return progress


class _Clock:
    """Measures the wall time of named blocks."""

    def __init__(self, seconds: Mapping[str, float] | None = None) -> None:
        self.seconds = dict(seconds or {})

    @contextlib.contextmanager
    def measure(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start


def _entered(log: Arrays, times: np.ndarray, update: int, row: Row) -> Arrays:
    """A copy of the log with one more row, in an order that does not depend on a resumption."""
    log = {name: array.copy() for name, array in log.items()}
    for name, values in row.items():
        room = log.setdefault(name, _room(times, np.shape(values)))
        room[np.searchsorted(times, update)] = values
    return dict(sorted(log.items()))


def _room(times: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.full((len(times), *shape), np.nan)
