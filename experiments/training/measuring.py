"""Trains the cells of the study: a part of the record for each."""

import contextlib
import itertools
from collections.abc import Iterable
from pathlib import Path

import jax
import numpy as np
import xarray
from _kit import cells, probes, trained

from gradflow.tasks import resolve_task
from gradflow.train import Probing, Progress, Training, resolve_probes
from gradflow.train.tensorboard import Board
from training.config import Config


def set_up(spec: str, config: Config) -> Training:
    """Builds and checks what is to be trained."""
    task = resolve_task(config.task)
    cell = cells.factory(spec, init=config.init)(task.input_size, config.hidden_size)
    resolve_probes(config.probe, cell)
    specs = {name: getattr(config, name) for name in ("optimiser", "clipping", "regulariser")}
    return trained.setup(config, cell, task, **specs, truncation=config.windows)


def train(config: Config, spec: str, training: Training, folder: Path | None) -> xarray.Dataset:
    """Trains one cell in all settings from all seeds, side by side."""
    # This study folds 0 into the seed's key before it splits it, which no other does: the recorded
    # trainings began so.
    k_runs, k_probe = (jax.random.fold_in(jax.random.key(config.seed), i) for i in range(2))
    settings = list(itertools.product(config.learning_rates, config.thresholds))
    number = config.num_seeds + (config.num_validation if len(settings) > 1 else 0)
    runs = trained.begin(training, jax.random.split(k_runs, number), settings)
    names = resolve_probes(config.probe, training.cell)
    steps = trained.evaluations(
        training,
        runs,
        config.schedule,
        folder=folder,
        identity=trained.identity(config, cell=spec),
        probing=Probing(names, k_probe, config.probe_sequences) if names else None,
        description=f"{spec}, evaluations",
    )
    last = _shown(steps, folder if config.tensorboard else None)
    found = _apart(_dataset(config, training, last, number), config.num_seeds)
    task = training.task
    return found.expand_dims(cell=[spec]).assign_attrs(
        task=config.task, loss_kind=task.loss, baseline=task.baseline, success=task.success
    )


def _apart(data: xarray.Dataset, num_seeds: int) -> xarray.Dataset:
    """Keeps of the validation seeds, which follow the others, what they came to."""
    test, other = data.isel(seed=slice(num_seeds)), data.isel(seed=slice(num_seeds, None))
    if not other.sizes["seed"]:
        return test
    final = trained.last_finite(other.loss.transpose(..., "update").values)
    dims = [name if name != "seed" else "validation_seed" for name in other.solved_at.dims]
    return test.assign(
        validation_loss=(dims, np.where(np.isnan(other.died_at), final, np.inf)),
        validation_solved_at=(dims, other.solved_at.values, other.solved_at.attrs),
    )


def _shown(steps: Iterable[Progress], folder: Path | None) -> Progress:
    """Takes a training to its end, and writes its metrics for TensorBoard into the folder."""
    steps = iter(steps)
    first = last = next(steps)
    with contextlib.nullcontext() if folder is None else Board(folder, first.update) as board:
        for last in itertools.chain([first], steps):
            if board is not None:
                board.show(last)
    return last


def _dataset(
    config: Config, training: Training, progress: Progress, num_runs: int
) -> xarray.Dataset:
    swept: dict[str, list[float]] = {"learning_rate": list(config.learning_rates)}
    if config.clip_threshold is not None:
        swept["clip_threshold"] = list(config.thresholds)
    sizes = {**{name: len(values) for name, values in swept.items()}, "seed": num_runs}
    found = {
        name: trained.by_setting(values, list(sizes.values()))
        for name, values in progress.probes.items()
    }
    schedule = config.schedule
    probed, at = probes.record(found, (*sizes, "probe_update"), schedule.probings)
    steps = {"step": np.arange(training.task.num_steps + 1)} if probed else {}
    return xarray.Dataset(
        {
            **trained.curves(progress, list(progress.metrics), sizes),
            **trained.events(progress, sizes),
            **probed,
        },
        coords={
            **swept,
            "seed": np.arange(num_runs),
            "update": ("update", schedule.evaluations, {"units": "updates"}),
            **at,
            **steps,
        },
    )
