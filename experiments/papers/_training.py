"""What the papers that train share: one training of several seeds, with checkpoints."""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray
from _kit.trained import curves, events, last_finite

from gradflow import study
from gradflow.train import Progress, Runs, Schedule, Training, fit, fresh_sequences


def trained(
    training: Training,
    runs: Runs,
    schedule: Schedule,
    *,
    folder: Path | None,
    identity: Mapping[str, Any],
    enough: Callable[[Progress], bool] = lambda progress: False,
) -> tuple[xarray.Dataset, Any]:
    """Trains runs to the end, or until ``enough``; returns metrics and the trained parameters.

    Args:
      training: The cell, the task and the optimiser.
      runs: As `gradflow.train.begin` makes them.
      schedule: The number of updates and evaluations.
      folder: Where checkpoints are kept, from which a killed training resumes; None keeps none.
      identity: The fields that distinguish this training from others in that folder.
      enough: Whether to stop after an evaluation, given the progress so far.

    Returns:
      The metrics, with dimensions seed and update, and the parameters of all seeds.
    """
    source = fresh_sequences(training, runs)
    steps = fit(source, schedule, folder=folder, identity=identity)
    with contextlib.closing(steps):
        steps = iter(study.progress(steps, "evaluations"))
        progress = next(steps)
        while not enough(progress) and (following := next(steps, None)) is not None:
            progress = following
    names, sizes = ("loss", "accuracy", "train_loss", "grad_norm"), {"seed": len(runs.solved_at)}
    dataset = xarray.Dataset(
        {**curves(progress, names, sizes), **events(progress, sizes)},
        coords={"update": ("update", schedule.evaluations, {"units": "updates"})},
    )
    return dataset, jax.device_get(progress.state.params)


def all_below(bound: float, progress: Progress) -> bool:
    """Whether the loss of every run has been below a bound at some evaluation."""
    return bool(np.all(np.any(progress.metrics["loss"] < bound, axis=0)))


def last(data: xarray.DataArray) -> np.ndarray:
    """Gives the last finite value of each run along ``update``."""
    return last_finite(data.transpose(..., "update").values)


def first_below(loss: xarray.DataArray, bound: float) -> np.ndarray:
    """Finds the first update at which each run's loss is below a bound; infinity if none is."""
    below = loss.transpose(..., "update").values < bound
    at = loss["update"].values[np.argmax(below, axis=-1)]
    return np.where(below.any(axis=-1), at, np.inf)
