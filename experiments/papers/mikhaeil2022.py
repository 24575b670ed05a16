"""An RNN learns a chaotic flow if its state is set to the data about every ln 2 / λ time units.

Gradients of a chaotic RNN explode as exp(λ t), so that backpropagation through a long part of a
chaotic series cannot train it. Sparse teacher forcing sets the state to the data every τ steps::

    z_t = F(z̃_{t-1})    x̂_t = B z_t    z̃_t = B⁺ x_t where τ divides t, else z_t

which cuts the gradient there. RNNs of 20 units (the paper: 30) without input are trained on the
Lorenz flow, sampled every 0.025 time units, by Adam and the squared error of x̂: for several τ, and
once without forcing but with every gradient rescaled to norm 1. Then they run autoregressively from
one state, and two distances to the flow are measured::

    D_stsp   the Kullback–Leibler divergence of the histogram of states from the flow's
    D_H      the Hellinger distance of the smoothed power spectra, the mean over the coordinates

The theorems are tested as well: on a stable cycle ∂h_T/∂h_t vanishes, in chaos it grows, both at
the rate of the largest exponent.

Source: Mikhaeil, Monfared, Durstewitz 2022, "On the difficulty of learning chaotic dynamics with
RNNs", NeurIPS, Fig. 1 (a) and theorems 1 and 2, and its code (DurstewitzLab/ChaosRNN).

    python experiments/papers/mikhaeil2022.py

Takes about four minutes on one core; the size of the paper, with --full, takes many hours. A killed
run resumes from its last checkpoint.
"""

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray
from _forcing import CELLS, pseudo_inverse, squared_error, with_hidden
from _kit import curves, fields, trained
from _lorenz import DT, exponents, orbit, spectral_distance, state_space_distance
from _maps import rates, theorems
from _paper import Paper

from gradflow import Cell, Params, study, unroll
from gradflow.spec import check_name
from gradflow.study import Claim, derived, numbers, statement
from gradflow.study.figure import Figure
from gradflow.train import Descent, Schedule, Source, descend, fit

VOLUME = -41 / 3
"""The divergence of the Lorenz flow, -(σ + 1 + β)."""

UNFORCED = "unforced"
NEAR = 2.0
"""The factor within which the best τ counts as near τ_pred."""


@dataclass(frozen=True)
class Config(study.Config):
    """The RNNs, the intervals of forcing, and the size of training and evaluation."""

    cells: tuple[str, ...] = study.field(("plrnn", "rnn", "lstm"), help="RNNs: plrnn, rnn, lstm.")
    intervals: tuple[int, ...] = fields.positive(
        (5, 10, 30, 60, 150), help="τ in steps, ascending."
    )
    hidden_size: int = fields.hidden_size(20)
    num_steps: int = fields.num_steps(150)
    batch_size: int = fields.batch_size(16)
    num_updates: int = fields.positive(3000, help="Updates.")
    chunk: int = fields.positive(500, help="Updates between two checkpoints.")
    learning_rate: float = fields.positive(3e-3, help="Learning rate of Adam.")
    num_data: int = fields.positive(20000, help="Samples of the flow.")
    num_generated: int = fields.positive(10000, help="Time steps of an autoregressive run.")
    num_seeds: int = fields.num_seeds(3)
    precision: Literal["float64", "float32"] = fields.training_precision()


def identity(config: Config) -> dict[str, Any]:
    """Gives the fields that distinguish a training from others in its folder."""
    return dataclasses.asdict(config)


def initialised(
    config: Config, cell: Cell, adam: optax.GradientTransformation, key: jax.Array
) -> Descent:
    """Initialises a cell and its B, before the first update."""
    k_cell, k_B = jax.random.split(key)
    r = config.hidden_size**-0.5
    B = jax.random.uniform(k_B, (3, config.hidden_size), minval=-r, maxval=r)
    return Descent.start(adam, {"cell": cell.init(k_cell), "B": B})


def gradient(
    config: Config,
    cell: Cell,
    series: jax.Array,
    interval: jax.Array,
    is_unforced: jax.Array,
    params: Params,
    update: jax.Array,
) -> tuple[Params, None]:
    """Computes the gradient on the batch of an update, rescaled to norm 1 without forcing."""
    key = jax.random.fold_in(jax.random.key(config.seed), update)
    latest = len(series) - config.num_steps - 1
    starts = jax.random.randint(key, (config.batch_size,), 0, latest)
    xs = series[jnp.arange(config.num_steps + 1)[:, None] + starts]
    slope = jax.grad(partial(squared_error, cell))(params, xs, interval)
    size = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(slope)))
    scale = jnp.where(is_unforced, 1 / size, 1.0)
    return jax.tree.map(lambda g: scale * g, slope), None


def train(config: Config, cell: Cell, data: np.ndarray, folder: Path | None) -> Params:
    """Trains all seeds of one cell together, at every τ and without forcing."""
    settings = [*config.intervals, config.num_steps]
    interval = jnp.repeat(jnp.array(settings), config.num_seeds)
    # The last setting is the one without forcing: its interval is the whole sequence.
    is_unforced = jnp.arange(len(interval)) >= len(config.intervals) * config.num_seeds
    adam, series = optax.adam(config.learning_rate), jnp.asarray(data, jnp.result_type(float))

    @jax.jit
    def updated(descents: Descent, first: jax.Array) -> Descent:
        updates = first + jnp.arange(config.chunk)

        def one(descent: Descent, *setting: jax.Array) -> Descent:
            of_update = partial(gradient, config, cell, series, *setting)
            return descend(of_update, adam, descent, updates)[0]

        return jax.vmap(one)(descents, interval, is_unforced)

    def advance(state: tuple[Descent, int], number: int) -> tuple[tuple[Descent, int], dict]:
        descents, first = state
        return (updated(descents, first), first + number), {}

    keys = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), 10**9), len(interval))
    begun = jax.vmap(partial(initialised, config, cell, adam))(keys)
    source = Source((begun, 0), advance, lambda state: (state, {}), {})
    schedule = Schedule(config.num_updates, config.chunk)
    steps = fit(source, schedule, folder=folder, identity=identity(config))
    *_, last = study.progress(steps, "checkpoints")
    return last.state[0].params


def free_runs(config: Config, cell: Cell, params: Params, data: np.ndarray) -> np.ndarray:
    """Runs each RNN autoregressively from the first sample; drops the first tenth of the steps."""

    def one(params: Params) -> jax.Array:
        h = pseudo_inverse(params["B"]) @ jnp.asarray(data[0], params["B"].dtype)
        free = jnp.zeros((config.num_generated, 0), h.dtype)
        return unroll(cell, params["cell"], free, carry=with_hidden(cell, h)).outputs

    outputs = jax.jit(jax.vmap(lambda params: one(params) @ params["B"].T))(params)
    return np.asarray(outputs, np.float64)[:, config.num_generated // 10 :]


def learn(config: Config, name: str, data: np.ndarray, folder: Path | None) -> xarray.Dataset:
    """Trains one cell and measures its autoregressive runs; dimensions setting, seed."""
    cell = CELLS[name](config.hidden_size)
    params = train(config, cell, data, folder)
    generated = free_runs(config, cell, params, data)
    shape = (len(config.intervals) + 1, config.num_seeds)
    return xarray.Dataset(
        {
            measure.__name__: (
                ("setting", "seed"),
                np.reshape([measure(one, data) for one in generated], shape),
            )
            for measure in (state_space_distance, spectral_distance)
        }
    )


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Trains every cell at every τ; measures the flow's exponents and the maps of the theorems."""
    _check(config)
    with jax.enable_x64(True):
        data = orbit(config.num_data)
        measured, growth = exponents(config.num_data), theorems()
    data = (data - data.mean(axis=0)) / data.std(axis=0)
    parts = [trained.unit(once, name, learn, config, name, data) for name in config.cells]
    halves = data[: len(data) // 2], data[len(data) // 2 :]
    coords = {
        "setting": [*map(str, config.intervals), UNFORCED],
        "cell": list(config.cells),
        "interval": list(config.intervals),
        "map": ["cycle", "chaos"],
    }
    return (
        xarray.concat(parts, dim="cell")
        .assign(
            exponents=(("exponent",), measured.exponents, {"units": "nats per time unit"}),
            by_pair=((), measured.by_pair, {"units": "nats per time unit"}),
            growth=(("map", "lag"), growth, {"units": "nats"}),
            rate=(("map",), rates(), {"units": "nats per step"}),
            floor=((), state_space_distance(*halves), {"units": "nats"}),
        )
        .assign_coords(coords)
        .assign_attrs(budget=budget(config))
    )


def budget(config: Config) -> str:
    """Writes the size of the training in words."""
    return (
        f"{config.hidden_size} units, {config.num_updates:,} updates at {config.learning_rate:g} "
        f"on sequences of {config.num_steps} steps, {config.num_seeds} seeds"
    )


def _check(config: Config) -> None:
    for name in config.cells:
        check_name("cell", name, CELLS)
    if list(config.intervals) != sorted(set(config.intervals)):
        raise ValueError(
            f"Expected intervals in ascending order, got {config.intervals}. Sort them, each once."
        )
    if config.intervals[-1] > config.num_steps:
        raise ValueError(
            f"Expected intervals of at most num_steps={config.num_steps}, got "
            f"{config.intervals[-1]}. Increase --num_steps."
        )
    if config.num_updates % config.chunk:
        raise ValueError(
            f"Expected num_updates to be a multiple of chunk={config.chunk}, got "
            f"{config.num_updates}. Change one of them."
        )


def predictable(dataset: xarray.Dataset) -> float:
    """Computes τ_pred = ln 2 / λ_max in steps."""
    return float(np.log(2) / dataset.exponents[0] / DT)


def claims(dataset: xarray.Dataset) -> list[Claim]:
    """The exponents of the flow, the theorems, and the best τ of each cell."""
    return [
        *about_flow(dataset),
        *(about_map(dataset.sel(map=name)) for name in dataset["map"].values),
        *(_learnt(dataset.sel(cell=name), predictable(dataset)) for name in dataset.cell.values),
    ]


def about_flow(dataset: xarray.Dataset) -> list[Claim]:
    """The exponents of the Lorenz flow."""
    return [
        derived(
            "fig1a-volume",
            "The exponents of the Lorenz flow, per time unit, sum to the divergence of the flow.",
            VOLUME,
            float(dataset.exponents.sum()),
            rtol=1e-4,
            source="the divergence of the flow, -(σ + 1 + β)",
            digits=6,
        ),
        numbers(
            "fig1a-exponent",
            "λ_max of the Lorenz flow by QR, per time unit, is the growth rate of a distance, so "
            f"that τ_pred is {predictable(dataset):.1f} steps of {DT}.",
            float(dataset.by_pair),
            float(dataset.exponents[0]),
            atol=0.05,
            kind="derived",
            source="growth of a distance of 1e-7 in a plain NumPy loop",
        ),
    ]


def about_map(data: xarray.Dataset) -> Claim:
    """The rate at which the Jacobian of a map vanishes or explodes."""
    name, lags = str(data["map"].values), data.sizes["lag"] - 1
    norms, half = data.growth.values, lags // 2
    where, theorem = {
        "cycle": ("vanishes on a stable cycle", 1),
        "chaos": ("explodes in chaos", 2),
    }[name]
    return derived(
        f"fig1a-{name}",
        f"∂h_T/∂h_t {where}, at the rate of the largest exponent (nats per step).",
        float(data.rate),
        (norms[-1] - norms[half]) / (lags - half),
        atol=0.01,
        source=f"the exponent in closed form, by theorem {theorem}",
    )


def _learnt(data: xarray.Dataset, tau: float) -> Claim:
    """Whether D_stsp is least near τ_pred, and below that without forcing."""
    name, intervals = str(data.cell.values), data.interval.values
    medians = data.state_space_distance.median("seed").values
    forced, unforced = medians[:-1], medians[-1]
    best = intervals[np.argmin(forced)]
    return statement(
        f"fig1a-{name}",
        f"The {name.upper()} reconstructs the flow best if τ is near τ_pred.",
        "minimum of D_stsp near τ_pred, below BPTT with normalised gradients (dashed)",
        {
            f"D_stsp at τ = {', '.join(map(str, intervals))}": forced,
            "D_stsp without forcing": unforced,
            "D_stsp between halves of the data": float(data.floor),
        },
        source=f"Fig. 1 (a), 30 units, Adam at 1e-3; here {data.attrs['budget']}",
        criterion="the τ with the least median of D_stsp over seeds is within a factor of "
        f"{NEAR:g} (our own) of τ_pred = {tau:.1f}, and D_stsp is below that without forcing there",
        holds=1 / NEAR <= best / tau <= NEAR and forced.min() < unforced,
        picture=True,
    )


LOOKS: dict[str, dict[str, Any]] = {
    "plrnn": {"color": "#009E73", "marker": "s", "linestyle": "-"},
    "rnn": {"color": "#D55E00", "marker": "o", "linestyle": "-"},
    "lstm": {"color": "#0072B2", "marker": "v", "linestyle": "-"},
}


def figure(dataset: xarray.Dataset) -> Figure:
    """Both distances against τ, dashed without forcing; and the maps of the theorems."""
    fig = study.figure.empty(8.4, 2.9)
    left, middle, right = fig.subplots(1, 3)
    labels = {"state_space_distance": r"$D_{stsp}$ (nats)", "spectral_distance": r"$D_H$"}
    for ax, (name, label) in zip((left, middle), labels.items(), strict=True):
        for cell in dataset.cell.values:
            data, look = dataset[name].sel(cell=cell), LOOKS[str(cell)]
            study.figure.band(
                ax, dataset.interval, data[:-1], "seed", markevery=1, label=str(cell), **look
            )
            unforced = float(data[-1].median())
            ax.axhline(unforced, color=look["color"], lw=1.0, ls=(0, (4, 2)))
        ax.axvline(predictable(dataset), color="black", lw=1.2, label=r"$\tau_{pred}$")
        ax.set(xlabel=r"learning interval $\tau$ (steps)", ylabel=label, xscale="log")
        ax.set_xticks(dataset.interval.values, [f"{t:g}" for t in dataset.interval.values])
        ax.minorticks_off()
    left.set(title="States; dashed: without forcing")
    left.set_ylim(bottom=0)
    middle.set(title="Spectra", ylim=(0, 1.02))
    for name, color in (("chaos", "#D55E00"), ("cycle", "#0072B2")):
        norms = dataset.growth.sel(map=name) / curves.NATS
        right.plot(norms, color=color, label={"chaos": "tent map", "cycle": "stable cycle"}[name])
    right.set(xlabel="lag T − t (steps)", title="Theorems 1 and 2")
    right.set_ylabel(curves.norm_label("h", "h", earlier="t"))
    right.legend()
    study.figure.legend_above(fig, left)
    return fig


EXPERIMENT = Paper(
    name="papers/mikhaeil2022",
    config=Config,
    run=run,
    figure=figure,
    claims=claims,
    quick={
        "cells": ("plrnn", "rnn"),
        "intervals": (2, 8),
        "hidden_size": 4,
        "num_steps": 8,
        "batch_size": 2,
        "num_updates": 4,
        "chunk": 2,
        "num_data": 600,
        "num_generated": 200,
        "num_seeds": 2,
    },
    full={
        "intervals": (5, 10, 15, 20, 30, 45, 60, 100, 200),
        "hidden_size": 30,
        "num_steps": 200,
        "batch_size": 32,
        "num_updates": 30_000,
        "learning_rate": 1e-3,
        "num_data": 100_000,
        "num_generated": 100_000,
        "num_seeds": 10,
    },
    doc=__doc__,
    citation="Mikhaeil, Monfared, Durstewitz 2022, On the difficulty of learning chaotic dynamics "
    "with RNNs, NeurIPS",
    figures={"fig1a": figure},
    traps=(
        "How the data were sampled was not read. 0.025 is chosen so that τ_pred is near the 30 "
        "steps of the paper's best LSTM.",
        "The authors' histogram leaves out all states outside of ±2 standard deviations and the "
        "first row of every axis; a run that leaves it is NaN and not in the mean. Here all states "
        "outside are one more cell, so that such a run is as far from the flow as one that stands "
        "still.",
        "The dashed line is for clipped sequences of 1000 steps there; here for sequences of the "
        "same T as with forcing, with each gradient rescaled to norm 1.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
