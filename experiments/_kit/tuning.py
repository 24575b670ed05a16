"""A learning rate for each competitor: from a stated grid, on seeds that no result is about.

A comparison of cells, initialisations or clippings trains each of them at every rate of the grid,
side by side, from the validation seeds, and takes the rate with the smallest median of their final
losses. The results are those of the test seeds at that rate.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import xarray

from _kit import runs, trained
from gradflow import Cell, Params
from gradflow.cell import Key
from gradflow.tasks import Task
from gradflow.train import Schedule, Training

GRID = (0.0003, 0.001, 0.003, 0.01, 0.03)
"""Half orders of magnitude around the default of Adam."""

RATE = "learning_rate"
"""The dimension of the tried rates, and the variable with the chosen ones."""


def keys(config: Any) -> tuple[Key, Key]:
    """Gives the keys of the ``num_seeds`` test seeds, and of the ``num_validation`` others."""
    every = runs.keys(config, config.num_seeds + config.num_validation)
    return every[: config.num_seeds], every[config.num_seeds :]


class Chosen(NamedTuple):
    """The runs of one cell at the learning rate that was chosen.

    Attributes:
      rate: The learning rate.
      losses: The final loss of each seed.
      first: The initial parameters of the cell, with an axis of seeds in front.
      params: The trained parameters of the model, likewise.
    """

    rate: float
    losses: np.ndarray
    first: Params
    params: Params


def train_at_best(
    config: Any, cell: Cell, task: Task, /, *, name: str, folder: Path | None, **what: Any
) -> Chosen:
    """Trains all seeds at every rate by Adam; keeps the rate of the smallest mean final loss.

    The losses are those of new sequences, and no seeds are held out: for studies whose results are
    not these losses.

    Args:
      config: Of a study, with ``learning_rates``, ``num_updates``, ``batch_size`` and ``clip``, the
        largest global norm of a gradient.
      cell: The cell.
      task: The task.
      name: What the progress bar shows.
      folder: The folder for checkpoints; None keeps none.
      what: What distinguishes this training from others of the study.
    """
    clipping = f"global_norm(threshold={config.clip})"
    training = trained.setup(config, cell, task, clipping=clipping)
    rates, seeds = config.learning_rates, config.num_seeds
    begun = trained.begin(training, runs.keys(config), [(rate,) for rate in rates])
    first = jax.tree.map(np.asarray, begun.params["cell"])  # the training reuses their memory
    schedule = Schedule(config.num_updates, config.num_updates // 2, early_stop=False)
    given = {"folder": folder, "identity": trained.identity(config, **what)}
    last = trained.to_end(training, begun, schedule, description=name, **given)
    losses = last.metrics["loss"][-1].reshape(len(rates), seeds)
    best = int(np.argmin(np.nan_to_num(losses, nan=np.inf).mean(axis=1)))
    first, params = jax.tree.map(
        lambda leaf: leaf[best * seeds : (best + 1) * seeds], (first, last.state.params)
    )
    return Chosen(rates[best], losses[best], first, params)


def final_losses(
    config: Any,
    training: Training,
    settings: Sequence[tuple[float, ...]],
    *,
    cells: Params | None = None,
    folder: Path | None = None,
    **what: Any,
) -> np.ndarray:
    """Trains the validation seeds in every setting, in one program; returns (setting, seed).

    Args:
      config: Of a study, with ``num_seeds``, ``num_validation`` and ``schedule``.
      training: What is trained on what.
      settings: As `_kit.trained.begin` takes them, the learning rate first.
      cells: As `_kit.trained.begin` takes them, for the validation keys.
      folder: The folder for the checkpoints of the study's own training; None keeps none.
      what: What distinguishes this training from others of the study.
    """
    last = trained.to_end(
        training,
        trained.begin(training, keys(config)[1], settings, cells),
        replace(config.schedule, early_stop=False),
        folder=folder and folder / "validation",
        identity=trained.identity(config, validated=what),
    )
    return last.metrics["loss"][-1].reshape(len(settings), config.num_validation).astype(float)


def best(losses: np.ndarray, rates: tuple[float, ...]) -> tuple[float, ...]:
    """Chooses the rate of the smallest median loss; that of a run that diverged is infinite.

    Args:
      losses: Final losses on validation seeds, (..., rate, seed).
      rates: The grid.

    Returns:
      One rate for each competitor, in the order of the axes in front; the smallest of equal ones.
    """
    median = np.median(np.where(np.isfinite(losses), losses, np.inf), axis=-1)
    return tuple(rates[place] for place in np.argmin(median, axis=-1).reshape(-1))


def variables(
    losses: np.ndarray, rates: tuple[float, ...], *dims: str
) -> dict[str, xarray.DataArray]:
    """Gives what was tried and what was chosen as variables of a record.

    Args:
      losses: As `best` takes them.
      rates: The grid.
      dims: The names of the axes in front.
    """
    tried = xarray.DataArray(losses, dims=(*dims, "tried_rate", "validation_seed"))
    chosen = np.reshape(best(losses, rates), losses.shape[:-2])
    return {
        "validation_loss": tried.assign_coords(tried_rate=list(rates)),
        RATE: xarray.DataArray(chosen, dims=dims),
    }


def text(data: xarray.Dataset) -> str:
    """Writes the chosen rate of one competitor, and whether it is at an end of the grid."""
    rate, tried = float(data[RATE]), data.tried_rate.values
    at_end = rate in (tried.min(), tried.max()) and len(tried) > 1
    return f"{rate:g}" + (" (end of the grid)" if at_end else "")


def note(data: xarray.Dataset) -> str:
    """States how the learning rates were chosen."""
    rates = ", ".join(f"{rate:g}" for rate in data.tried_rate.values)
    number = data.sizes["validation_seed"]
    return (
        f"(learning rate: of {rates}, the one with the smallest median of the final losses of "
        f"{number} validation seed{'s' * (number > 1)}, none of which is among the seeds above)"
    )


def side_by_side(
    make: Callable[[Any], optax.GradientTransformation], rates: jax.Array
) -> optax.GradientTransformation:
    """Makes the transformation of runs side by side, each with its own rate, state and clipping.

    Args:
      make: learning rate -> the transformation of one run.
      rates: One for each run; every leaf of gradients and parameters has the same leading axis.
    """

    def init(params: Any) -> Any:
        return jax.vmap(lambda rate, own: make(rate).init(own))(rates, params)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return jax.vmap(lambda rate, *own: make(rate).update(*own))(rates, updates, state, params)

    return optax.GradientTransformation(init, update)
