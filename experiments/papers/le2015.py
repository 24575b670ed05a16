"""An identity RNN adds what a plain tanh net cannot reach; gated cells add it sooner.

The adding problem at T = 100: of pairs (value, marker), with values U(0, 1) and one marker in
each half, the sum of the two that are marked is to be said at the end. Tanh RNN, identity RNN
(ReLU, W_h = I, input weights N(0, 0.001²)), GRU and LSTM (forget bias 1), with 64 units, and
Glorot's law for all but the identity RNN, by Adam at 0.001 with the gradient clipped at norm 1,
batch 32; the test error is the mean over 2,000 fresh sequences. A cell is done when all its seeds
are below 0.01. To answer 1 whatever comes in has the error 2/12.

Source: Le, Jaitly, Hinton 2015, arXiv:1504.00941, section 4.1 (there by gradient descent, with
grids over rate and clipping, T = 150 to 400); the baseline: Tallec & Ollivier 2018.

    python experiments/papers/le2015.py

Takes about four minutes on two cores. A killed run goes on from its last evaluation.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from _paper import Paper
from _training import first_below, last, trained

from gradflow import study
from gradflow.cells import resolve
from gradflow.study import Claim, numbers, statement
from gradflow.tasks import resolve_task
from gradflow.train import (
    Progress,
    Schedule,
    Training,
    begin,
    resolve_clipping,
    resolve_optimiser,
)

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

G = "recurrent_init='glorot', input_init='glorot'"
CELLS = {
    "tanh": f"rnn({G})",
    "irnn": "irnn",
    "gru": f"gru({G})",
    "lstm": f"lstm(forget_bias=1.0, {G})",
}
SOLVED = 0.01
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Config(study.Config):
    """The cells, the length, and how long is trained."""

    cell: tuple[str, ...] = study.field(tuple(CELLS), help="Cells: tanh, irnn, gru, lstm.")
    num_steps: int = study.field(100, help="Sequence length T.", positive=True)
    hidden_size: int = study.field(64, help="Hidden units.", positive=True)
    num_updates: int = study.field(6000, help="The most updates of a run.", positive=True)
    eval_every: int = study.field(250, help="Updates between two evaluations.", positive=True)
    eval_size: int = study.field(2000, help="Fresh sequences an evaluation.", positive=True)
    num_seeds: int = study.field(3, help="Seeds, side by side.", positive=True)
    precision: Literal["float64", "float32"] = study.field("float32", help="Precision of the run.")


def train(config: Config, name: str, folder: Any) -> "xarray.Dataset":
    """All seeds of one cell."""
    task = resolve_task(f"adding(num_steps={config.num_steps})")
    training = Training(
        resolve(CELLS[name])(task.input_size, config.hidden_size),
        task,
        resolve_optimiser("adam"),
        clipping=resolve_clipping("global_norm(threshold=1.0)"),
        eval_size=config.eval_size,
    )
    keys = jax.random.split(jax.random.key(config.seed), config.num_seeds)
    runs = begin(training, keys, jnp.full(config.num_seeds, LEARNING_RATE))
    schedule = Schedule(config.num_updates, config.eval_every, early_stop=False)
    identity = {"cell": name, "steps": config.num_steps, "updates": config.num_updates}
    return trained(training, runs, schedule, folder=folder(), identity=identity, enough=all_solved)[
        0
    ]


def all_solved(progress: Progress) -> bool:
    """Whether every run is below the bound at this evaluation."""
    loss = progress.metrics["loss"]
    return bool(np.all(loss[np.isfinite(loss).any(axis=1)][-1] < SOLVED))


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """Every cell; dimensions cell, seed, update."""
    import xarray

    def unit(name: str) -> "xarray.Dataset":
        if name not in CELLS:
            raise ValueError(f"cell is expected to be of {', '.join(CELLS)}, got {name!r}")
        return once(name, partial(train, config, name, partial(once.folder, name)))

    task = resolve_task(f"adding(num_steps={config.num_steps})")
    batch = task.sample(jax.random.key(config.seed), 20000)
    target = jnp.sum(batch.targets[..., 0] * batch.weights, axis=0)
    found = xarray.concat([unit(name) for name in config.cell], dim="cell")
    return found.assign_coords(cell=list(config.cell)).assign(
        baseline=((), float(jnp.mean((target - 1) ** 2))), num_steps=((), config.num_steps)
    )


def claims(dataset: "xarray.Dataset") -> list[Claim]:
    """Each claim about the cells that were run, beside what was measured."""
    found = [
        numbers(
            "adding-baseline",
            "error of the answer 1 over 20,000 sequences",
            1 / 6,
            float(dataset.baseline),
            atol=0.005,
            source="Tallec & Ollivier 2018, section 4 (prints 0.167, for 2/12)",
            exact=True,
        )
    ]
    bounds = {"gru": (0, 0.01), "lstm": (0, 0.01), "irnn": (0, 0.05), "tanh": (0.05, np.inf)}
    words = {
        "gru": "a GRU solves it",
        "lstm": "an LSTM solves it",
        "irnn": "an identity RNN solves it",
        "tanh": "a tanh net does not",
    }
    for name, (low, high) in bounds.items():
        if name in dataset.cell:
            loss = dataset.loss.sel(cell=name)
            median = float(np.median(last(loss)))
            at = np.median(first_below(loss, 0.05))
            found.append(
                statement(
                    f"adding-{name}",
                    f"{words[name]}: its test error after at most 6,000 updates",
                    f"below {high:g}" if low == 0 else f"above {low:g}",
                    {"median test error": median, "median update from which it is below 0.05": at},
                    kind="regression",
                    source="runs of the same set-up elsewhere; the paper's own curves, of "
                    "T = 150 to 400 and gradient descent, were not read",
                    criterion=f"the median over seeds is from {low:g} to {high:g}",
                    holds=low <= median <= high,
                )
            )
    return found


def figure(dataset: "xarray.Dataset") -> "Figure":
    """The test error against the update, with the error of the constant answer."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(5.2, 3.4))
    ax = fig.subplots()
    names = {"tanh": ("rnn", "tanh RNN"), "irnn": ("irnn", "IRNN"), "gru": ("gru", "GRU"),
             "lstm": ("lstm", "LSTM")}  # fmt: skip
    for index, cell in enumerate(dataset.cell.values):
        kind, label = names[str(cell)]
        look = {**study.figure.cell_style(kind, index), "label": label, "markersize": 4}
        data = dataset.loss.sel(cell=cell)
        study.figure.band(ax, data["update"] / 1000, data, "seed", **look)
    ax.axhline(1 / 6, color="black", lw=0.8, ls=(0, (1, 1)), label="answer 1")
    ax.set(
        yscale="log",
        xlabel="thousand updates",
        ylabel="test error (squared)",
        title=f"Adding problem, T = {int(dataset.num_steps)}",
    )
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return fig


EXPERIMENT = Paper(
    name="papers/le2015",
    config=Config,
    run=run,
    figure=figure,
    claims=claims,
    quick={
        "cell": ("irnn",),
        "num_steps": 10,
        "hidden_size": 5,
        "num_updates": 20,
        "eval_every": 10,
        "eval_size": 20,
        "num_seeds": 2,
    },
    full={"num_seeds": 5, "num_steps": 200, "num_updates": 20000, "hidden_size": 100},
    doc=__doc__,
    citation="Le, Jaitly, Hinton 2015, A simple way to initialize recurrent networks of rectified "
    "linear units, arXiv:1504.00941",
    figures={"adding": figure},
    traps=(
        "The baseline of the adding problem is quoted as 0.1767 from this paper; it is 2/12.",
        "The code of Arjovsky 2016 draws the identity RNN's input weights by Glorot's law, not "
        "from N(0, 0.001²).",
        "An identity RNN is unstable in training: its error can leap up again after it has fallen.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
