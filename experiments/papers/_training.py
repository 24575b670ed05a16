"""What the papers that train share: one training of several seeds, kept while it is under way."""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from gradflow import study
from gradflow.train import Progress, Runs, Schedule, Training, fit, fresh_sequences
from gradflow.train.runs import NEVER

if TYPE_CHECKING:
    import xarray


def trained(
    training: Training,
    runs: Runs,
    schedule: Schedule,
    *,
    folder: Path | None,
    identity: Mapping[str, Any],
    enough: Callable[[Progress], bool] = lambda progress: False,
) -> "tuple[xarray.Dataset, Any]":
    """Trains runs to the end, or until ``enough``; returns metrics and the trained parameters.

    Args:
      training: What is trained on what.
      runs: As `gradflow.train.begin` makes them.
      schedule: How long.
      folder: Where checkpoints are kept, from which a killed training resumes; None for nowhere.
      identity: The fields that distinguish this training from others in that folder.
      enough: Whether to stop after an evaluation, given the progress so far.

    Returns:
      The metrics, with dimensions seed and update, and the parameters of all seeds.
    """
    import xarray

    source = fresh_sequences(training, runs)
    steps = fit(source, schedule, folder=folder, identity=identity)
    with contextlib.closing(steps):
        steps = iter(study.progress(steps, "evaluations"))
        progress = next(steps)
        while not enough(progress) and (following := next(steps, None)) is not None:
            progress = following
    end = jax.device_get(progress.state._replace(key=None))
    names = ("loss", "accuracy", "train_loss", "grad_norm")
    events = {"solved_at": end.solved_at, "died_at": end.died_at}
    dataset = xarray.Dataset(
        {
            **{name: (("seed", "update"), progress.metrics[name].T) for name in names},
            **{n: ("seed", np.where(at == NEVER, np.nan, at)) for n, at in events.items()},
        },
        coords={"update": ("update", schedule.evaluations, {"units": "updates"})},
    )
    return dataset, end.params


def last(data: "xarray.DataArray") -> np.ndarray:
    """The last value of each run that was reached, along ``update``."""
    values = data.transpose(..., "update").values
    reached = values.shape[-1] - 1 - np.argmax(np.isfinite(values[..., ::-1]), axis=-1)
    return np.take_along_axis(values, reached[..., None], axis=-1)[..., 0]


def first_below(loss: "xarray.DataArray", bound: float) -> np.ndarray:
    """The first update at which each run's loss is below a bound; infinity if none is."""
    below = loss.transpose(..., "update").values < bound
    at = loss["update"].values[np.argmax(below, axis=-1)]
    return np.where(below.any(axis=-1), at, np.inf)
