"""An orthogonal W_h lets a network solve copy memory, where a tanh RNN and an LSTM stay at chance.

Copy memory: the network reads ten of eight symbols and repeats them after T blanks and a marker.
The memoryless baseline, the loss of the best answer without memory, is 10 log 8/(T + 20) as a mean
over all steps. Five networks of 128 units::

    RNN        h_t = tanh(W_h h_{t-1} + W_x x_t + b), Glorot
    RNN-orth   h_t = modReLU(W_h h_{t-1} + W_x x_t, b), W_h initialised as an orthogonal matrix
    expRNN     the same with W_h = exp(A), A skew-symmetric, which stays orthogonal
    nnRNN      the same with W_h in Schur form, P (Λ + T) Pᵀ
    LSTM

are trained by RMSprop at the paper's learning rates, which are smaller for A and the moduli of Λ,
with batches of 10. The figure shows learning curves and gradients at initialisation and at the end:
the spectral norm of ∂s_T/∂s_k on the whole carry for every lag, in float64, as the median over
eight sequences.

Source: Kerg et al. 2019, arXiv:1905.12080, Fig. 2, left, and its code (nnRNN/nnRNN_release);
Arjovsky, Shah, Bengio 2016, arXiv:1511.06464 (the task and its baseline).

    python experiments/papers/kerg2019_copy.py

Takes about three minutes on two cores, with the first two networks and the LSTM at T = 200; --full
runs all five, and T = 100 as well (37 minutes beside other work). A killed run resumes from its
last evaluation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray
from _kit import curves, fields, runs
from _kit.trained import begin, unit
from _paper import Paper
from _training import first_below, trained

from gradflow import Cell, Params, flow, study
from gradflow.cells import resolve, rnn
from gradflow.cells.orthogonal import modrelu
from gradflow.spec import check_name
from gradflow.study import Claim, derived, statement
from gradflow.study.figure import Axes, Figure
from gradflow.tasks import Task, resolve_task
from gradflow.train import Schedule, Training
from gradflow.train.optimisers import Optimiser, rmsprop
from gradflow.train.prober import Prober

BELOW = 0.5
"""The fraction of the baseline below which a network counts as using its memory."""

AT_BASELINE = 0.1
"""The relative distance within which a loss counts as that of the baseline."""

FORGETFUL = ("RNN", "LSTM")
SETTLED_FROM = 200  # blanks T: for shorter tasks no loss of the forgetful networks is published
PROBED = 8  # sequences on which the gradients are measured


def modrelu_rnn(input_size: int, hidden_size: int) -> Cell:
    """h_t = modReLU(W_h h_{t-1} + W_x x_t, b), W_h initialised as orthogonal, b = 0."""
    plain = rnn(input_size, hidden_size, recurrent_init="orthogonal", input_init="glorot")

    def step(params: Params, h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = modrelu(params["W_h"] @ h + params["W_x"] @ x, params["b"])
        return h, h

    return Cell(plain.init, step, plain.initial_carry)


class Net(NamedTuple):
    """One of the paper's networks, with its training.

    Attributes:
      make: (input size, hidden size) -> the cell.
      rate: The learning rate of RMSprop.
      decay: The decay of RMSprop.
      slow: The parameters with a learning rate of their own.
      slow_rate: That learning rate.
    """

    make: Callable[[int, int], Cell]
    rate: float
    decay: float
    slow: tuple[str, ...] = ()
    slow_rate: float = 0.0

    def optimiser(self) -> Optimiser:
        """RMSprop with slow_rate for the slow parameters and rate for the others."""
        return Optimiser(partial(_rmsprop, self), self.rate)


def _rmsprop(net: Net, learning_rate: Any) -> optax.GradientTransformationExtraArgs:
    factor = net.slow_rate / net.rate

    def slowed(updates: Params, _: Any) -> Params:
        cell = {k: factor * v if k in net.slow else v for k, v in updates["cell"].items()}
        return {**updates, "cell": cell}

    return optax.chain(rmsprop(learning_rate, decay=net.decay), optax.stateless(slowed))


NETS = {
    "RNN": Net(resolve("rnn(recurrent_init='glorot', input_init='glorot')"), 1e-3, 0.9),
    "RNN-orth": Net(modrelu_rnn, 2e-4, 0.99),
    "expRNN": Net(resolve("orthogonal"), 1e-3, 0.99, ("A",), 1e-4),
    "nnRNN": Net(resolve("nnrnn"), 5e-4, 0.99, ("A", "gamma"), 1e-6),
    "LSTM": Net(resolve("lstm(recurrent_init='orthogonal', input_init='glorot')"), 5e-4, 0.99),
}


@dataclass(frozen=True)
class Config(study.Config):
    """The networks, the lengths, and the size of their training."""

    nets: tuple[str, ...] = study.field(
        ("RNN", "RNN-orth", "LSTM"), help="Networks: RNN, RNN-orth, expRNN, nnRNN, LSTM."
    )
    lengths: tuple[int, ...] = fields.positive((200,), help="Numbers T of blanks.")
    hidden_size: int = fields.hidden_size(128)
    batch_size: int = fields.batch_size(10)
    num_updates: int = fields.num_updates(2500)
    eval_every: int = fields.eval_every(100)
    eval_size: int = fields.eval_size(100)
    num_seeds: int = fields.num_seeds(3)
    precision: Literal["float64", "float32"] = fields.training_precision()


def copy(length: int) -> Task:
    """Makes the task, with its memoryless baseline."""
    return resolve_task(f"copy(lag={length})")


def reach(cell: Cell, params: Params, inputs: jax.Array) -> dict[str, jax.Array]:
    """Computes log ‖∂s_T/∂s_k‖ of the whole carry for every lag T - k of one sequence."""
    return {"log_norm": flow.log_norms(cell, params, inputs)}


def train(config: Config, name: str, length: int, folder: Path | None) -> xarray.Dataset:
    """Trains all seeds of one network; measures its gradients before and after."""
    net, task = NETS[name], copy(length)
    cell = net.make(task.input_size, config.hidden_size)
    training = Training(
        cell, task, net.optimiser(), batch_size=config.batch_size, eval_size=config.eval_size
    )
    begun = begin(training, runs.keys(config), [(net.rate,)])
    start = jax.device_get(begun.params["cell"])
    schedule = Schedule(config.num_updates, config.eval_every, early_stop=False)
    identity = {"net": name, "length": length, "updates": config.num_updates}
    found, end = trained(training, begun, schedule, folder=folder, identity=identity)
    inputs = task.sample(jax.random.key(config.seed + 1), PROBED).inputs
    prober = Prober(partial(reach, cell), jnp.swapaxes(inputs, 0, 1))
    norms = [prober(params)["log_norm"] for params in (start, end["cell"])]
    return found.assign(log_norm=(("when", "seed", "lag"), np.stack(norms)))


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Trains every network at every length; dimensions length, net, seed, update or lag."""
    for name in config.nets:
        check_name("network", name, NETS)

    def trained_at(name: str, length: int) -> xarray.Dataset:
        found = unit(once, f"{name}-{length}", train, config, name, length)
        return found.assign_coords(lag=np.arange(found.sizes["lag"]))

    at = [
        xarray.concat([trained_at(name, length) for name in config.nets], dim="net")
        for length in config.lengths
    ]
    return (
        xarray.concat(at, dim="length", join="outer")
        .assign_coords(net=list(config.nets), length=list(config.lengths), when=["start", "end"])
        .assign(baseline=("length", [copy(T).baseline for T in config.lengths]))
    )


def claims(dataset: xarray.Dataset) -> list[Claim]:
    """The gradients at initialisation, and which networks use their memory."""
    names = [str(name) for name in dataset.net.values]
    isometries = [name for name in names if name in ("RNN-orth", "expRNN")]
    found = [about_start(dataset, isometries)] if isometries else []
    for length in dataset.length.values:
        data = dataset.sel(length=length)
        found += [_falls(data, name) for name in names if name not in FORGETFUL]
        if length >= SETTLED_FROM and {"RNN-orth", *FORGETFUL} <= set(names):
            found.append(about_settled(data))
    return found


def about_start(dataset: xarray.Dataset, isometries: list[str]) -> Claim:
    """The gradients of the orthogonal networks at initialisation."""
    return derived(
        "fig2-birth",
        f"At initialisation ‖∂s_T/∂s_k‖ of {' and '.join(isometries)} is 1 at every lag "
        "(measured: the log norm furthest from 0).",
        0,
        float(abs(dataset.log_norm.sel(net=isometries, when="start")).max()),
        atol=1e-4,
        source="modReLU is the identity at b = 0; the matrix is initialised in float32",
    )


def _falls(data: xarray.Dataset, name: str) -> Claim:
    length, fraction = int(data.length), data.loss.sel(net=name) / data.baseline
    at = float(np.median(first_below(fraction, BELOW)))
    return statement(
        f"fig2-{name}-{length}",
        f"{name} learns copy memory at T = {length}: its loss falls below the memoryless baseline.",
        "falls to about 0",
        {
            f"median updates to below {BELOW:g} of the baseline": at,
            "lowest fraction of the baseline": float(fraction.min("update").median("seed")),
        },
        source="Fig. 2, left, and the supplement, as read from the saved plot of the code",
        criterion=f"the loss falls below {BELOW:g} of the baseline in the median over seeds",
        holds=np.isfinite(at),
        picture=True,
    )


def about_settled(data: xarray.Dataset) -> Claim:
    """The networks that stay at the baseline, against one that does not."""
    fraction = data.loss / data.baseline
    ends = fraction.sel(net=list(FORGETFUL)).isel(update=-1).median("seed").values
    at = float(np.median(first_below(fraction.sel(net="RNN-orth"), BELOW)))
    return statement(
        f"fig2-settled-{int(data.length)}",
        f"At T = {int(data.length)} the losses of RNN and LSTM settle at the memoryless baseline, "
        "while that of RNN-orth falls below it.",
        "0.0945, the baseline; falls to about 0",
        {
            "last loss of RNN and LSTM": ends * float(data.baseline),
            f"median updates to below {BELOW:g} of the baseline, RNN-orth": at,
        },
        source="Fig. 2, left: LSTM and RNN settle on 0.0945 at T = 200",
        criterion=f"the last losses of RNN and LSTM are within {AT_BASELINE:g} relative of the "
        f"baseline, and that of RNN-orth falls below {BELOW:g} of it in as many updates (medians "
        "over seeds)",
        holds=(np.abs(ends - 1) <= AT_BASELINE).all() and np.isfinite(at),
    )


LOOKS: dict[str, dict[str, Any]] = {
    "RNN": {"color": "#D55E00", "linestyle": ":", "marker": "o"},
    "RNN-orth": {"color": "#0072B2", "linestyle": "-", "marker": "s"},
    "expRNN": {"color": "#009E73", "linestyle": "--", "marker": "^"},
    "nnRNN": {"color": "#CC79A7", "linestyle": "-.", "marker": "D"},
    "LSTM": {"color": "black", "linestyle": (0, (5, 2)), "marker": "v"},
}


def figure(dataset: xarray.Dataset) -> Figure:
    """Losses, and gradients against the lag before and after training; one row per length."""
    lengths = dataset.length.values
    fig = study.figure.empty(8.4, 0.4 + 2.5 * len(lengths))
    for row, length in zip(fig.subplots(len(lengths), 3, squeeze=False), lengths, strict=True):
        data = dataset.sel(length=length)
        _draw_losses(row[0], data)
        for ax, when in zip(row[1:], ("start", "end"), strict=True):
            norms = data.log_norm.sel(when=when).dropna("lag", how="all") / curves.NATS
            _draw(ax, np.arange(norms.sizes["lag"]), norms)
            title = {"start": "gradient at initialisation", "end": "gradient after training"}[when]
            ax.set(xlabel=curves.LAG, title=title)
        row[1].set_ylabel(curves.norm_label("s", "s"))
        row[2].sharey(row[1])
    handles = fig.axes[2].get_legend_handles_labels()
    fig.axes[2].legend(*handles, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return fig


def _draw_losses(ax: Axes, data: xarray.Dataset) -> None:
    _draw(ax, data["update"], data.loss)
    baseline = float(data.baseline)
    ax.axhline(baseline, color="0.4", lw=0.8)
    place = {"transform": ax.get_yaxis_transform(), "ha": "right", "fontsize": 7}
    ax.text(1.0, 1.15 * baseline, "memoryless", **place)
    ax.set(xlabel="update", ylabel="test loss (nats per step)", yscale="log")
    ax.set_title(f"copy memory, T = {int(data.length)}")


def _draw(ax: Axes, x: Any, values: xarray.DataArray) -> None:
    for name in map(str, values.net.values):
        look = {**LOOKS[name], "markevery": 0.2, "markersize": 3, "label": name}
        study.figure.band(ax, x, values.sel(net=name), "seed", **look)


EXPERIMENT = Paper(
    name="papers/kerg2019_copy",
    config=Config,
    run=run,
    figure=figure,
    claims=claims,
    quick={
        "nets": tuple(NETS),
        "lengths": (3,),
        "hidden_size": 4,
        "batch_size": 4,
        "num_updates": 20,
        "eval_every": 10,
        "eval_size": 20,
        "num_seeds": 2,
    },
    full={"nets": tuple(NETS), "lengths": (100, 200)},
    doc=__doc__,
    citation="Kerg, Goyette, Touzel, Gidel, Vorontsov, Bengio, Lajoie 2019, Non-normal recurrent "
    "neural network (nnRNN), arXiv:1905.12080",
    figures={"fig2": figure},
    traps=(
        "The unit of the x-axis of the paper's plot is unclear. Whether the loss of a network "
        "falls is compared, not when.",
        "The README of the code initialises nnRNN by Cayley's law, the supplement by Henaff's, "
        "which is used here.",
        "The paper adds a penalty to nnRNN's loss that keeps gamma near 1. Here gamma has a small "
        "learning rate instead.",
        "modReLU at b = 0 is the identity, so that every network with it is linear until b has "
        "changed.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
