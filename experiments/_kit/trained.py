"""Trained runs as datasets: a training taken to its end, its curves and events by setting.

The runs of one training stand in the order of settings, then seeds: `curves` and `events` give the
axis of runs one axis for each setting, in that order.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gradflow import study
from gradflow.train import Progress, Runs, Schedule, Training, fit, fresh_sequences
from gradflow.train.runs import NEVER

Variable = tuple[tuple[str, ...], np.ndarray, dict[str, str]]
"""Dimensions, values and attributes, as a dataset takes them."""


def to_end(
    training: Training,
    runs: Runs,
    schedule: Schedule,
    *,
    folder: Path | None,
    identity: Mapping[str, Any],
    probing: Any = None,
    description: str = "evaluations",
) -> Progress:
    """Trains runs to the end, from the last checkpoint in the folder where there is one.

    Args:
      folder: Where checkpoints are kept; None keeps none.
      identity: What tells this training from any other in that folder.
      probing: What is measured along the way.
      description: What the progress bar shows.
    """
    source = fresh_sequences(training, runs, probing)
    steps = fit(source, schedule, folder=folder, identity=identity)
    *_, last = study.progress(steps, description)
    return last


def by_setting(values: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Turns (time, run, ...) into (setting, ..., seed, time, ...)."""
    values = values.reshape(len(values), *sizes, *values.shape[2:])
    return np.moveaxis(values, 0, len(sizes))


def curves(
    progress: Progress, names: Sequence[str], sizes: Mapping[str, int]
) -> dict[str, Variable]:
    """Gives the metrics of a training as variables over settings, seed and update.

    Args:
      names: The metrics.
      sizes: The dimensions of the runs, the seed last, each with its length.
    """
    return {
        name: ((*sizes, "update"), by_setting(progress.metrics[name], list(sizes.values())), {})
        for name in names
    }


def events(progress: Progress, sizes: Mapping[str, int]) -> dict[str, Variable]:
    """Gives the updates at which runs solved their task and died, NaN where they did not."""
    runs = jax.device_get(progress.state._replace(key=None))
    found = {"solved_at": runs.solved_at, "died_at": runs.died_at}
    return {
        name: (
            tuple(sizes),
            np.where(at == NEVER, np.nan, at).reshape(list(sizes.values())),
            {"units": "updates"},
        )
        for name, at in found.items()
    }


def last_finite(losses: np.ndarray) -> np.ndarray:
    """Gives the last finite value of each curve, along the last axis; NaN where there is none."""
    finite = np.isfinite(losses)
    last = losses.shape[-1] - 1 - np.argmax(finite[..., ::-1], axis=-1)
    found = np.take_along_axis(losses, last[..., None], axis=-1)[..., 0]
    return np.where(finite.any(axis=-1), found, np.nan)
