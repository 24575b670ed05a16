"""Chrono initialisation takes an LSTM below the line of no memory in the copy task, sooner.

An LSTM reads K of eight symbols and says them again after T blanks, from a forget bias of 1 and
from chrono's::

    b_f ~ log U(1, T_max - 1)    b_i = -b_f    T_max = 3T/2

by RMSprop with decay 0.9 and rate 0.001, without clipping, as in the paper; smaller than there,
with T = 50 for 500 and 2000, K = 5 for 10 and 64 units for 128. What remembers nothing has the
loss K log 8/(T + 2K) over all steps. What is compared is the first evaluation at which the median
of the chrono nets is below half of that, and where the others are then.

Source: Tallec & Ollivier 2018, arXiv:1804.11188, Fig. 1 and section 4.

    python experiments/papers/tallec2018_copy.py

Takes about five minutes on two cores. --full of `run.py` has T = 500, K = 10 and 128 units, as the
paper, with two seeds and 20,000 updates. A killed run goes on from its last evaluation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from _paper import Paper
from _training import first_below, trained
from tallec2018 import INITS, LEARNING_RATE, draw_losses
from tallec2018 import Config as AddingConfig

from gradflow import study
from gradflow.cells import resolve
from gradflow.initializers import resolve_bias
from gradflow.study import Claim, numbers, statement
from gradflow.tasks import Task, resolve_task
from gradflow.train import Progress, Schedule, Training, begin, resolve_optimiser

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

    from gradflow import Cell

BELOW = 0.5
AT_THE_LINE = 0.9


@dataclass(frozen=True)
class Config(AddingConfig):
    """The lengths, the size, and how long is trained."""

    lengths: tuple[int, ...] = study.field((50,), help="Blanks T.", positive=True)
    num_recalled: int = study.field(5, help="Symbols to copy, of eight.", positive=True)
    hidden_size: int = study.field(64, help="Hidden units.", positive=True)
    num_updates: int = study.field(16000, help="The most updates of a run.", positive=True)
    eval_size: int = study.field(200, help="Fresh sequences an evaluation.", positive=True)


def copy(length: int, num_recalled: int) -> Task:
    """The task; its baseline is the loss of what remembers nothing."""
    return resolve_task(f"copy(lag={length}, num_recalled={num_recalled})")


def lstm(init: str, length: int, hidden_size: int) -> "Cell":
    """The LSTM with either forget bias, for T_max = 3T/2."""
    bias = f"'chrono(max_lag={3 * length // 2})'" if init == "chrono" else "1.0"
    spec = f"lstm(forget_bias={bias}, recurrent_init='glorot', input_init='glorot')"
    return resolve(spec)(resolve_task("copy").input_size, hidden_size)


def train(
    config: Config, init: str, length: int, folder: Any, *, enough: Callable[[Progress], bool]
) -> "xarray.Dataset":
    """All seeds of one initialisation at one length, until it is enough."""
    training = Training(
        lstm(init, length, config.hidden_size),
        copy(length, config.num_recalled),
        resolve_optimiser("rmsprop(decay=0.9)"),
        batch_size=config.batch_size,
        eval_size=config.eval_size,
    )
    keys = jax.random.split(jax.random.key(config.seed), config.num_seeds)
    runs = begin(training, keys, jnp.full(config.num_seeds, LEARNING_RATE))
    schedule = Schedule(config.num_updates, config.eval_every, early_stop=False)
    identity = {"init": init, "length": length, "updates": config.num_updates}
    return trained(training, runs, schedule, folder=folder(), identity=identity, enough=enough)[0]


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """Both initialisations at every length; dimensions init, length, seed, update.

    Chrono goes first, until every seed is below half of the line, and the others as far as it; but
    not at all where chrono does not get there, for then nothing hangs on them.
    """
    import xarray

    def unit(init: str, length: int, enough: Callable[[Progress], bool]) -> "xarray.Dataset":
        name = f"{init}-{length}"
        folder = partial(once.folder, name)
        return once(name, partial(train, config, init, length, folder, enough=enough))

    def pair(length: int) -> "xarray.Dataset":
        bound = BELOW * copy(length, config.num_recalled).baseline
        chrono = unit("chrono", length, partial(all_below, bound))
        if not np.isfinite(np.median(first_below(chrono.loss, bound))):
            return xarray.concat([xarray.full_like(chrono, np.nan), chrono], dim="init")
        reached = chrono.loss.notnull().any("seed")
        stop = int(chrono["update"].values[reached.values].max())
        standard = unit("standard", length, lambda progress: progress.update >= stop)
        return xarray.concat([standard, chrono], dim="init")

    biases = resolve_bias("chrono(max_lag=150)")(jax.random.key(config.seed), (100000,), float)
    return (
        xarray.concat([pair(length) for length in config.lengths], dim="length")
        .assign_coords(init=list(INITS), length=list(config.lengths))
        .assign(
            baseline=("length", [copy(T, config.num_recalled).baseline for T in config.lengths]),
            num_recalled=((), config.num_recalled),
            mean_memory=((), float(jnp.mean(jnp.exp(biases)))),
        )
    )


def all_below(bound: float, progress: Progress) -> bool:
    """Whether every run has been below a bound at an evaluation."""
    return bool(np.all(np.any(progress.metrics["loss"] < bound, axis=0)))


def claims(dataset: "xarray.Dataset") -> list[Claim]:
    """Each claim about the lengths that were run, beside what was measured."""
    found = [
        numbers(
            "fig1-line",
            "loss of what remembers nothing, at T = 500 and 2000",
            [0.0400, 0.0103],
            [copy(T, 10).baseline for T in (500, 2000)],
            atol=5e-5,
            source="Fig. 1, and section 4: 10 log 8/(T + 20)",
            exact=True,
        ),
        numbers(
            "fig1-law",
            "mean of exp(b_f) of chrono's law with T_max = 150",
            75,
            float(dataset.mean_memory),
            rtol=0.01,
            source="section 2.2: b_f ~ log U(1, T_max - 1), whose mean is T_max/2",
            exact=True,
        ),
    ]
    return [*found, *(_copied(dataset.sel(length=length)) for length in dataset.length.values)]


def _copied(data: "xarray.Dataset") -> Claim:
    length, line = int(data.length), float(data.baseline)
    chrono, standard = (data.loss.sel(init=init) / line for init in ("chrono", "standard"))
    at = float(np.median(first_below(chrono, BELOW)))
    others = np.nan  # they are not run where chrono has not gone below it
    if np.isfinite(at):
        others = float(standard.sel(update=at, method="backfill").median("seed"))
    return statement(
        f"fig1-copy{length}",
        f"at T = {length} chrono goes below the line of no memory while a forget bias of 1 stays",
        "chrono below it, the others at it",
        {
            f"median updates until chrono is below {BELOW:g} of it": at,
            "fraction of it of the others then": others,
            "lowest fraction of it of chrono": float(chrono.min("update").median("seed")),
        },
        source="Fig. 1, ten symbols over T = 500 and 2000, 128 units; here "
        f"{int(data.num_recalled)} symbols",
        criterion=f"the median over seeds goes below {BELOW:g} of it while that of the others is "
        f"still above {AT_THE_LINE:g} of it",
        holds=others > AT_THE_LINE,
        picture=length not in (500, 2000) or int(data.num_recalled) != 10,
    )


def figure(dataset: "xarray.Dataset") -> "Figure":
    """The loss against the update, a panel for each length."""
    from matplotlib.figure import Figure

    lengths = dataset.length.values
    fig = Figure(figsize=(1.4 + 3.4 * len(lengths), 3.2))
    axes = fig.subplots(1, len(lengths), squeeze=False)[0]
    for ax, length in zip(axes, lengths, strict=True):
        draw_losses(ax, dataset.loss.sel(length=length))
        line = float(dataset.baseline.sel(length=length))
        ax.axhline(line, color="black", lw=0.8, ls=(0, (1, 1)), label="no memory")
        ax.set_title(f"Copy task, T = {length}")
    axes[0].set_ylabel("test loss (nats a step)")
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
        "hidden_size": 128,
        "num_updates": 20000,
        "num_seeds": 2,
    },
    doc=__doc__,
    citation="Tallec & Ollivier 2018, Can recurrent neural networks warp time?, arXiv:1804.11188",
    figures={"fig1": figure},
    traps=(
        "T counts the blanks up to the first answer, as in Arjovsky 2016: a sequence has T + 20 "
        "steps, and the loss is their mean.",
        "Without clipping single updates throw a net back for hundreds of updates, in either "
        "initialisation: the first time below is compared.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
