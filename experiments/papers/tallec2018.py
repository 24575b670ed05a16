"""With chrono initialisation an LSTM learns the adding problem several times sooner.

An LSTM learns to add two marked values of a sequence of T = 200, with a forget bias of 1 and with
chrono initialisation::

    b_f ~ log U(1, T_max - 1)    b_i = -b_f    T_max = T

It is trained by RMSprop with decay 0.9 and learning rate 0.001, without clipping, as in the paper,
but with 40 units instead of 128. The first evaluation at which the test error, over 1,000 fresh
sequences, is below 0.05 is compared. The constant answer 1 has the error 2/12.

Source: Tallec & Ollivier 2018, arXiv:1804.11188, Fig. 2 and section 2.

    python experiments/papers/tallec2018.py

Takes about five minutes on two cores; T = 750 and 128 units, with --full, take hours. A killed run
resumes from its last evaluation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray
from _kit import fields, runs
from _kit.trained import begin, setup, unit
from _paper import Paper
from _training import all_below, first_below, trained

from gradflow import Cell, study
from gradflow.cells import resolve
from gradflow.study import Claim, statement
from gradflow.study.figure import Axes, Figure
from gradflow.tasks import Task, resolve_task
from gradflow.train import Progress, Schedule

REACHED = 0.05
LEARNING_RATE = 1e-3
INITS = ("standard", "chrono")
FACTORS = {200: ("much", 1 / 0.6, "much faster"), 750: ("several times", 3.5, "7 times faster")}
"""By T: how much sooner chrono learns, the factor that counts, and what the paper says."""


@dataclass(frozen=True)
class Config(study.Config):
    """The lengths, the size, and the training."""

    lengths: tuple[int, ...] = fields.positive((200,), help="Sequence lengths T.")
    hidden_size: int = fields.hidden_size(40)
    batch_size: int = fields.batch_size(20)
    num_updates: int = fields.num_updates(8000)
    eval_every: int = fields.eval_every(250)
    eval_size: int = fields.eval_size(1000)
    num_seeds: int = fields.num_seeds(3)
    precision: Literal["float64", "float32"] = fields.training_precision()


def lstm(init: str, max_lag: int, hidden_size: int, input_size: int = 2) -> Cell:
    """Makes the LSTM, with chrono initialisation for T_max = max_lag or a forget bias of 1."""
    bias = f"'chrono(max_lag={max_lag})'" if init == "chrono" else "1.0"
    spec = f"lstm(forget_bias={bias}, recurrent_init='glorot', input_init='glorot')"
    return resolve(spec)(input_size, hidden_size)


def train(config: Config, init: str, length: int, folder: Path | None) -> xarray.Dataset:
    """Trains all seeds of one initialisation at one length until each has been below the bound."""
    cell = lstm(init, length, config.hidden_size)
    identity = {"init": init, "length": length, "updates": config.num_updates}
    enough = partial(all_below, REACHED)
    task = resolve_task(f"adding(num_steps={length})")
    return train_lstm(config, cell, task, identity, folder, enough)


def train_lstm(
    config: Config,
    cell: Cell,
    task: Task,
    identity: dict[str, Any],
    folder: Path | None,
    enough: Callable[[Progress], bool],
) -> xarray.Dataset:
    """Trains all seeds of one LSTM by the paper's RMSprop."""
    training = setup(config, cell, task, optimiser="rmsprop(decay=0.9)")
    begun = begin(training, runs.keys(config), [(LEARNING_RATE,)])
    schedule = Schedule(config.num_updates, config.eval_every, early_stop=False)
    options = {"folder": folder, "identity": identity, "enough": enough}
    return trained(training, begun, schedule, **options)[0]


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Trains with both initialisations at every length; dimensions init, length, seed, update."""

    def over_lengths(init: str) -> xarray.Dataset:
        parts = [unit(once, f"{init}-{T}", train, config, init, T) for T in config.lengths]
        return xarray.concat(parts, dim="length")

    found = xarray.concat([over_lengths(init) for init in INITS], dim="init")
    return found.assign_coords(init=list(INITS), length=list(config.lengths))


def claims(dataset: xarray.Dataset) -> list[Claim]:
    """By how much sooner chrono learns each length."""
    lengths = [length for length in FACTORS if length in dataset.length]
    return [about(dataset.loss.sel(length=length), length) for length in lengths]


def about(loss: xarray.DataArray, length: int) -> Claim:
    """How much sooner chrono reaches the bound."""
    (words, factor, published), limit = FACTORS[length], float(loss["update"].max())
    medians = np.median(first_below(loss, REACHED), axis=-1)
    standard, chrono = np.minimum(medians, limit)
    ratio = standard / chrono if np.isfinite(medians[1]) else np.nan
    return statement(
        f"fig2-adding{length}",
        f"Chrono initialisation learns to add over T = {length} {words} sooner than a forget bias "
        "of 1.",
        published,
        {
            f"median updates to an error below {REACHED:g}, of {limit:.0f} at most, "
            "forget bias 1 and chrono": medians,
            "updates of forget bias 1, or the most run, over those of chrono": ratio,
        },
        source="Fig. 2 and section 4; smaller networks here, and the factor is our own",
        criterion=f"chrono takes at least {factor:.2g} times fewer updates, in the median over "
        "seeds",
        holds=ratio >= factor,
    )


def draw_losses(ax: Axes, loss: xarray.DataArray) -> None:
    """Draws the losses of both initialisations against the update: standard blue, chrono red."""
    looks = {
        "standard": {"color": "#0072B2", "linestyle": "--", "label": "forget bias 1"},
        "chrono": {"color": "#D55E00", "linestyle": "-", "label": "chrono"},
    }
    for init, look in looks.items():
        data = loss.sel(init=init)
        study.figure.band(ax, data["update"] / 1000, data, "seed", **look)
    ax.set(xlabel="updates (thousands)", yscale="log")


def figure(dataset: xarray.Dataset) -> Figure:
    """The test error against the update, a panel for each length."""
    lengths = dataset.length.values
    fig = study.figure.empty(1.2 + 3.4 * len(lengths), 3.2)
    axes = fig.subplots(1, len(lengths), squeeze=False)[0]
    for ax, length in zip(axes, lengths, strict=True):
        draw_losses(ax, dataset.loss.sel(length=length))
        ax.axhline(1 / 6, color="black", lw=0.8, ls=(0, (1, 1)), label="constant answer 1")
        ax.axhline(REACHED, color="0.5", lw=0.8, ls=(0, (1, 1)), label="counts as learnt")
        ax.set_title(f"Adding problem, T = {length}")
    axes[0].set_ylabel("test error (mean squared)")
    axes[-1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return fig


EXPERIMENT = Paper(
    name="papers/tallec2018",
    config=Config,
    run=run,
    figure=figure,
    claims=claims,
    quick={
        "hidden_size": 4,
        "batch_size": 4,
        "num_updates": 20,
        "eval_every": 10,
        "eval_size": 20,
        "num_seeds": 2,
    },
    full={
        "lengths": (200, 750),
        "hidden_size": 128,
        "batch_size": 32,
        "num_updates": 20000,
        "num_seeds": 5,
    },
    doc=__doc__,
    citation="Tallec & Ollivier 2018, Can recurrent neural networks warp time?, arXiv:1804.11188",
    figures={"fig2": figure},
    traps=(
        "Without clipping a single sequence can make an LSTM forget what it has learnt. Therefore "
        "the first time below the bound is compared, not the last error.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
