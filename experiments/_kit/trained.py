"""Trained runs as datasets: settings side by side, a training taken to its end, curves and events.

The runs of one training stand in the order of settings, then seeds: `curves` and `events` give the
axis of runs one axis for each setting, in that order.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray

from gradflow import Cell, Params, study
from gradflow.cell import Key
from gradflow.tasks import Task
from gradflow.train import (
    Progress,
    Runs,
    Schedule,
    Training,
    fit,
    fresh_sequences,
    resolve_clipping,
    resolve_optimiser,
    resolve_regulariser,
)
from gradflow.train import begin as begin_runs
from gradflow.train.runs import NEVER

Variable = tuple[tuple[str, ...], np.ndarray, dict[str, str]]
"""Dimensions, values and attributes, as a dataset takes them."""


def unit(
    once: study.Once, name: str, train: Callable[..., xarray.Dataset], *arguments: Any
) -> xarray.Dataset:
    """Computes or reads a unit of work that trains.

    Args:
      train: (*arguments, folder for checkpoints) -> the unit's part of the record.
      *arguments: What ``train`` takes before the folder.
    """
    return once(name, lambda: train(*arguments, once.folder(name)))


def identity(config: study.Config, **what: Any) -> dict[str, Any]:
    """Returns what distinguishes one training from another: the configuration and what is given."""
    return {**dataclasses.asdict(config), **what}


def setup(
    config: Any,
    cell: Cell,
    task: Task,
    *,
    optimiser: str = "adam",
    clipping: str = "none",
    regulariser: str | None = None,
    **given: Any,
) -> Training:
    """Sets up a training from the specs of its parts.

    The fields ``batch_size`` and ``eval_size`` are the configuration's, where it has them.

    Args:
      given: Further fields of the training, or in place of those.
    """
    sizes = {k: getattr(config, k) for k in ("batch_size", "eval_size") if hasattr(config, k)}
    return Training(
        cell,
        task,
        resolve_optimiser(optimiser),
        resolve_clipping(clipping),
        resolve_regulariser(regulariser) if regulariser else None,
        **{**sizes, **given},
    )


def begin(
    training: Training,
    keys: Key,
    settings: Sequence[tuple[float, ...]],
    cells: Params | None = None,
) -> Runs:
    """Begins a run for each setting and seed.

    A seed has the same initial parameters and the same training sequences in every setting, so that
    settings can be compared seed by seed.

    Args:
      keys: One for each seed.
      settings: The learning rate of each, and the threshold of its clipping where that is swept.
      cells: Parameters of the cells, with an axis of runs in front, in place of those that the
        training initialises.
    """
    each = jnp.repeat(jnp.asarray(settings, float), len(keys), axis=0).T
    runs = begin_runs(training, jnp.tile(keys, len(settings)), *each)
    return runs if cells is None else runs._replace(params={**runs.params, "cell": cells})


def evaluations(
    training: Training,
    runs: Runs,
    schedule: Schedule,
    *,
    folder: Path | None = None,
    identity: Mapping[str, Any] | None = None,
    probing: Any = None,
    description: str = "evaluations",
) -> Iterator[Progress]:
    """Trains runs, from the last checkpoint in the folder if there is one; yields as `fit` does.

    Args:
      folder: Where checkpoints are kept; None keeps none.
      identity: What tells this training from any other in that folder.
      probing: What is measured along the way.
      description: What the progress bar shows.
    """
    source = fresh_sequences(training, runs, probing)
    steps = fit(source, schedule, folder=folder, identity=identity or {})
    return iter(study.progress(steps, description))


def to_end(*arguments: Any, **options: Any) -> Progress:
    """Takes the `evaluations` of a training to the last one."""
    *_, last = evaluations(*arguments, **options)
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
