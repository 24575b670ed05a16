"""The copy task by an LSTM with chrono initialisation, and with a forget bias of 1.

An LSTM reads K of eight symbols and repeats them after T blanks, with a forget bias of 1 and with
chrono initialisation::

    b_f ~ log U(1, T_max - 1)    b_i = -b_f    T_max = 3T/2

It is trained by RMSprop with decay 0.9 and learning rate 0.001, without clipping, as in the paper,
but with T = 50 instead of 500 and 2000, K = 5 instead of 10, and 64 units instead of 128. The
memoryless baseline, the loss of the best answer without memory, is K log 8/(T + 2K) as a mean over
all steps. The first evaluation at which the median loss of the chrono networks is below half of the
baseline is compared with the loss of the others at that update.

Source: Tallec & Ollivier 2018, arXiv:1804.11188, Fig. 1 and section 4.

    python experiments/papers/tallec2018_copy.py

Takes about five minutes on two cores. --full has T = 500 and K = 10, as the paper, with 64 units,
two seeds and 30,000 updates. A killed run resumes from its last evaluation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import xarray
from _kit import fields
from _kit.trained import unit
from _paper import Paper
from _training import all_below, first_below
from tallec2018 import INITS, draw_losses, lstm, train_lstm
from tallec2018 import Config as AddingConfig

from gradflow import study
from gradflow.study import Claim, statement
from gradflow.study.figure import Figure
from gradflow.tasks import Task, resolve_task
from gradflow.train import Progress

BELOW = 0.5
AT_BASELINE = 0.9
"""Fractions of the baseline: below one a network uses its memory, above the other it does not."""

PUBLISHED = (500, 2000)
"""The numbers of blanks in the paper."""


@dataclass(frozen=True)
class Config(AddingConfig):
    """The lengths, the size, and the training."""

    lengths: tuple[int, ...] = fields.positive((50,), help="Numbers T of blanks.")
    num_recalled: int = fields.positive(5, help="Symbols to repeat, of eight kinds.")
    hidden_size: int = fields.hidden_size(64)
    num_updates: int = fields.num_updates(16000)
    eval_size: int = fields.eval_size(200)


def copy(length: int, num_recalled: int) -> Task:
    """Makes the task, with its memoryless baseline."""
    return resolve_task(f"copy(lag={length}, num_recalled={num_recalled})")


def train(
    config: Config,
    init: str,
    length: int,
    folder: Path | None,
    *,
    enough: Callable[[Progress], bool],
) -> xarray.Dataset:
    """Trains all seeds of one initialisation at one length until it is enough."""
    task = copy(length, config.num_recalled)
    cell = lstm(init, 3 * length // 2, config.hidden_size, task.input_size)
    identity = {"init": init, "length": length, "updates": config.num_updates}
    return train_lstm(config, cell, task, identity, folder, enough)


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Trains with both initialisations at every length; dimensions init, length, seed, update.

    The chrono networks train first, until every seed is below half of the baseline or the budget
    ends; the others train for as many updates.
    """

    def trained(init: str, length: int, enough: Callable[[Progress], bool]) -> xarray.Dataset:
        work = partial(train, enough=enough)
        return unit(once, f"{init}-{length}", work, config, init, length)

    def pair(length: int) -> xarray.Dataset:
        bound = BELOW * copy(length, config.num_recalled).baseline
        chrono = trained("chrono", length, partial(all_below, bound))
        reached = chrono.loss.notnull().any("seed")
        stop = int(chrono["update"].values[reached.values].max())
        standard = trained("standard", length, lambda progress: progress.update >= stop)
        return xarray.concat([standard, chrono], dim="init")

    return (
        xarray.concat([pair(length) for length in config.lengths], dim="length")
        .assign_coords(init=list(INITS), length=list(config.lengths))
        .assign(
            baseline=("length", [copy(T, config.num_recalled).baseline for T in config.lengths]),
            num_recalled=((), config.num_recalled),
        )
    )


def claims(dataset: xarray.Dataset) -> list[Claim]:
    """Each length that was run."""
    return [_copied(dataset.sel(length=length)) for length in dataset.length.values]


def _copied(data: xarray.Dataset) -> Claim:
    length, baseline = int(data.length), float(data.baseline)
    chrono, standard = (data.loss.sel(init=init) / baseline for init in ("chrono", "standard"))
    at = float(np.median(first_below(chrono, BELOW)))
    others = np.nan  # there is no such update where chrono does not reach half of the baseline
    if np.isfinite(at):
        others = float(standard.sel(update=at, method="backfill").median("seed"))
    return statement(
        f"fig1-copy{length}",
        f"At T = {length} the loss falls below the memoryless baseline with chrono initialisation, "
        "while it stays there with a forget bias of 1.",
        "chrono below it, the others at it",
        {
            f"median updates to below {BELOW:g} of the baseline, chrono": at,
            "fraction of the baseline at that update, forget bias 1": others,
            "lowest fraction of the baseline, chrono": float(chrono.min("update").median("seed")),
            "lowest, forget bias 1": float(standard.min("update").median("seed")),
        },
        source="Fig. 1, ten symbols over T = 500 and 2000, 128 units; here "
        f"{int(data.num_recalled)} symbols",
        criterion=f"the median loss over seeds falls below {BELOW:g} of the baseline with chrono, "
        f"while that with a forget bias of 1 is still above {AT_BASELINE:g} of it",
        holds=others > AT_BASELINE,
        picture=length not in PUBLISHED or int(data.num_recalled) != 10,
    )


def figure(dataset: xarray.Dataset) -> Figure:
    """The loss against the update, a panel for each length."""
    lengths = dataset.length.values
    fig = study.figure.empty(1.4 + 3.4 * len(lengths), 3.2)
    axes = fig.subplots(1, len(lengths), squeeze=False)[0]
    for ax, length in zip(axes, lengths, strict=True):
        draw_losses(ax, dataset.loss.sel(length=length))
        baseline = float(dataset.baseline.sel(length=length))
        ax.axhline(baseline, color="black", lw=0.8, ls=(0, (1, 1)), label="memoryless")
        ax.set_title(f"Copy task, T = {length}")
    axes[0].set_ylabel("test loss (nats per step)")
    drawn = [line for line in axes[-1].get_lines() if np.isfinite(line.get_ydata()).any()]
    axes[-1].legend(handles=drawn, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return fig


EXPERIMENT = Paper(
    name="papers/tallec2018_copy",
    config=Config,
    run=run,
    figure=figure,
    claims=claims,
    quick={
        "lengths": (3,),
        "num_recalled": 2,
        "hidden_size": 4,
        "batch_size": 4,
        "num_updates": 20,
        "eval_every": 10,
        "eval_size": 20,
        "num_seeds": 2,
    },
    full={
        "lengths": (500,),
        "num_recalled": 10,
        "num_updates": 30000,
        "num_seeds": 2,
    },
    doc=__doc__,
    citation="Tallec & Ollivier 2018, Can recurrent neural networks warp time?, arXiv:1804.11188",
    figures={"fig1": figure},
    traps=(
        "T counts the blanks up to the first answer, as in Arjovsky 2016: a sequence has T + 20 "
        "steps, and the loss is their mean.",
        "Without clipping a single update can set a network back by hundreds of updates, with "
        "either initialisation. Therefore the first time below the bound is compared.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
