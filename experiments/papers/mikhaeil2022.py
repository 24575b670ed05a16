"""A net learns a chaotic flow if it is forced back to the data about every ln 2 / λ time units.

Gradients of a chaotic net explode as exp(λ t), so that backpropagation through a long stretch of a
chaotic series cannot learn it. Sparse teacher forcing puts the state on the data every τ steps::

    z_t = F(z̃_{t-1})    x̂_t = B z_t    z̃_t = B⁺ x_t where τ divides t, else z_t

which cuts the gradient there. Nets of 20 units for the paper's 30, without input, learn the Lorenz
flow, a sample every 0.025 time units, by Adam and the squared error of x̂, for several τ, and once
without forcing but with every gradient brought to norm 1. Then they run freely from one point, and
two distances to the flow are measured::

    D_stsp   the Kullback–Leibler divergence of the histogram of states from the flow's
    D_H      the Hellinger distance of the smoothed power spectra, the mean over the coordinates

Beside it stand the theorems: on a stable cycle ∂h_T/∂h_t vanishes, in chaos it grows, both at the
rate of the largest exponent.

Source: Mikhaeil, Monfared, Durstewitz 2022, "On the difficulty of learning chaotic dynamics with
RNNs", NeurIPS, Fig. 1 (a) and theorems 1 and 2, and its code (DurstewitzLab/ChaosRNN).

    python experiments/papers/mikhaeil2022.py

Takes about four minutes on one core; as large as the paper, under --full, many hours. A killed run
goes on from its last checkpoint.
"""

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _forcing import CELLS, pseudo_inverse, squared_error, with_hidden
from _lorenz import DT, exponents, orbit, spectral_distance, state_space_distance
from _paper import Paper

from gradflow import Cell, flow, study, unroll
from gradflow.cells import rnn
from gradflow.spec import check_name
from gradflow.study import Claim, numbers, statement
from gradflow.train import Descent, Schedule, Source, descend, fit

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

    from gradflow import Params

VOLUME = -41 / 3  # the divergence of the Lorenz flow, -(σ + 1 + β)
TENT = 1.8  # the slope of the chaotic map
LAGS = 200
UNFORCED = "unforced"
NEAR = 2.0


@dataclass(frozen=True)
class Config(study.Config):
    """The nets, the intervals of forcing, and how long is trained and run."""

    cells: tuple[str, ...] = study.field(("plrnn", "rnn", "lstm"), help="Nets.")
    intervals: tuple[int, ...] = study.field(
        (5, 10, 30, 60, 150), help="τ in steps, ascending.", positive=True
    )
    hidden_size: int = study.field(20, help="Units M.", positive=True)
    num_steps: int = study.field(150, help="Steps T of a sequence.", positive=True)
    batch_size: int = study.field(16, help="Sequences an update.", positive=True)
    num_updates: int = study.field(3000, help="Updates.", positive=True)
    chunk: int = study.field(500, help="Updates from one checkpoint to the next.", positive=True)
    learning_rate: float = study.field(3e-3, help="Of Adam.", positive=True)
    num_data: int = study.field(20000, help="Samples of the flow.", positive=True)
    num_generated: int = study.field(10000, help="Steps of a free run.", positive=True)
    num_seeds: int = study.field(3, help="Nets of each kind and τ.", positive=True)
    precision: Literal["float64", "float32"] = study.field("float32", help="Of the training.")


def maps() -> list[tuple[Cell, "Params", jax.Array]]:
    """A tanh unit on its stable 2-cycle and a chaotic tent map: cell, parameters, start."""
    h = 0.5
    for _ in range(200):
        h = np.tanh(-2 * h)
    s = TENT  # h = (relu(u), relu(u - 1/2)), u <- s relu(u) - 2 s relu(u - 1/2): the tent map
    weights = {
        "cycle": ([[-2.0]], [0.0]),
        "chaos": ([[s, -2 * s], [s, -2 * s]], [0.0, -0.5]),
    }
    cycle, tent = (
        {"W_h": jnp.array(W_h), "W_x": jnp.zeros((len(b), 0)), "b": jnp.array(b)}
        for W_h, b in weights.values()
    )
    return [
        (rnn(0, 1), cycle, jnp.array([h])),
        (rnn(0, 2, activation="relu"), tent, jnp.array([0.3, 0.0])),
    ]


def theorems() -> np.ndarray:
    """log ‖∂h_T/∂h_t‖ of both maps, (map, lag)."""
    free = jnp.zeros((LAGS, 0))
    norms = [flow.log_norms(cell, params, free, carry=carry) for cell, params, carry in maps()]
    return np.stack([np.asarray(norm) for norm in norms])


def rates() -> np.ndarray:
    """The exponents of both maps in closed form: log 2 (1 - h²) on the cycle, log s of the tent."""
    h = 0.9
    for _ in range(200):
        h = np.tanh(2 * h)
    return np.log([2 * (1 - h**2), TENT])


def identity(config: Config) -> dict[str, Any]:
    """What tells a training from others in its folder."""
    return dataclasses.asdict(config)


def train(config: Config, cell: Cell, data: np.ndarray, folder: Any) -> "Params":
    """All seeds of one net at every τ, and unforced with gradients of norm 1, side by side."""
    settings = [*config.intervals, config.num_steps]
    interval = jnp.repeat(jnp.array(settings), config.num_seeds)
    unit = jnp.arange(len(settings) * config.num_seeds) >= len(config.intervals) * config.num_seeds
    adam, series = optax.adam(config.learning_rate), jnp.asarray(data, jnp.result_type(float))

    def initialised(key: jax.Array) -> Descent:
        k_cell, k_B = jax.random.split(key)
        r = config.hidden_size**-0.5
        B = jax.random.uniform(k_B, (3, config.hidden_size), minval=-r, maxval=r)
        return Descent.start(adam, {"cell": cell.init(k_cell), "B": B})

    def gradient(
        interval: jax.Array, unit: jax.Array, params: "Params", at: jax.Array
    ) -> "tuple[Params, None]":
        key = jax.random.fold_in(jax.random.key(config.seed), at)
        latest = len(series) - config.num_steps - 1
        starts = jax.random.randint(key, (config.batch_size,), 0, latest)
        xs = series[jnp.arange(config.num_steps + 1)[:, None] + starts]
        slope = jax.grad(partial(squared_error, cell))(params, xs, interval)
        size = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(slope)))
        scale = jnp.where(unit, 1 / size, 1.0)
        return jax.tree.map(lambda g: scale * g, slope), None

    @jax.jit
    def updated(descents: Descent, first: jax.Array) -> Descent:
        updates = first + jnp.arange(config.chunk)

        def one(descent: Descent, interval: jax.Array, unit: jax.Array) -> Descent:
            return descend(partial(gradient, interval, unit), adam, descent, updates)[0]

        return jax.vmap(one)(descents, interval, unit)

    def advance(state: tuple[Descent, int], number: int) -> tuple[tuple[Descent, int], dict]:
        descents, first = state
        return (updated(descents, first), first + number), {}

    keys = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), 10**9), len(unit))
    source = Source((jax.vmap(initialised)(keys), 0), advance, lambda state: (state, {}), {})
    schedule = Schedule(config.num_updates, config.chunk)
    steps = fit(source, schedule, folder=folder, identity=identity(config))
    *_, last = study.progress(steps, "checkpoints")
    return last.state[0].params


def free_runs(config: Config, cell: Cell, params: "Params", data: np.ndarray) -> np.ndarray:
    """Each net's own series from the first sample on, (runs, steps, 3), without the first tenth."""

    def one(params: "Params") -> jax.Array:
        h = pseudo_inverse(params["B"]) @ jnp.asarray(data[0], params["B"].dtype)
        free = jnp.zeros((config.num_generated, 0), h.dtype)
        return unroll(cell, params["cell"], free, carry=with_hidden(cell, h)).outputs

    outputs = jax.jit(jax.vmap(lambda params: one(params) @ params["B"].T))(params)
    return np.asarray(outputs, np.float64)[:, config.num_generated // 10 :]


def learn(config: Config, name: str, data: np.ndarray, folder: Any) -> "xarray.Dataset":
    """Trains one kind of net and measures its free runs; dimensions setting, seed."""
    import xarray

    cell = CELLS[name](config.hidden_size)
    params = train(config, cell, data, folder())
    made = free_runs(config, cell, params, data)
    shape = (len(config.intervals) + 1, config.num_seeds)
    return xarray.Dataset(
        {
            measure.__name__: (
                ("setting", "seed"),
                np.reshape([measure(one, data) for one in made], shape),
            )
            for measure in (state_space_distance, spectral_distance)
        }
    )


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """Every net at every τ, the flow's exponents and the theorems' maps."""
    import xarray

    _check(config)
    with jax.enable_x64(True):
        data = orbit(config.num_data)
        measured, growth = exponents(config.num_data), theorems()
    data = (data - data.mean(axis=0)) / data.std(axis=0)
    parts = [
        once(name, partial(learn, config, name, data, partial(once.folder, name)))
        for name in config.cells
    ]
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
    )


def _check(config: Config) -> None:
    for name in config.cells:
        check_name("net", name, CELLS)
    if list(config.intervals) != sorted(set(config.intervals)):
        raise ValueError(f"intervals in ascending order are expected, got {config.intervals}")
    if config.intervals[-1] > config.num_steps:
        raise ValueError(
            f"intervals of at most num_steps={config.num_steps} are expected, got "
            f"{config.intervals[-1]}; give longer sequences"
        )
    if config.num_updates % config.chunk:
        raise ValueError(
            f"num_updates is expected to be a multiple of chunk={config.chunk}, "
            f"got {config.num_updates}"
        )


def predictable(dataset: "xarray.Dataset") -> float:
    """τ_pred = ln 2 / λ_max, in steps."""
    return float(np.log(2) / dataset.exponents[0] / DT)


def claims(dataset: "xarray.Dataset") -> list[Claim]:
    """Each claim beside what was measured."""
    largest, tau, lags = float(dataset.exponents[0]), predictable(dataset), dataset.sizes["lag"] - 1
    half = lags // 2
    found = [
        numbers(
            "fig1a-volume",
            "sum of the Lorenz exponents, per time unit",
            VOLUME,
            float(dataset.exponents.sum()),
            rtol=1e-4,
            kind="derived",
            source="the divergence of the flow, -(σ + 1 + β)",
            exact=True,
            digits=6,
        ),
        numbers(
            "fig1a-exponent",
            f"λ_max of the Lorenz flow by QR, per time unit: τ_pred = {tau:.1f} steps of {DT}",
            float(dataset.by_pair),
            largest,
            atol=0.05,
            kind="derived",
            source="growth of a distance of 1e-7 in a plain NumPy loop",
        ),
    ]
    for name, which, rate in zip(
        ("cycle", "chaos"), ("vanishes on a stable cycle", "explodes in chaos"),
        dataset.rate.values, strict=True,
    ):  # fmt: skip
        norms = dataset.growth.sel(map=name).values
        found.append(
            numbers(
                f"fig1a-{name}",
                f"∂h_T/∂h_t {which}, at the rate of the exponent: nats a step",
                rate,
                (norms[-1] - norms[half]) / (lags - half),
                atol=0.01,
                kind="derived",
                source="the exponent in closed form, "
                f"as theorem {1 if name == 'cycle' else 2} has it",
                exact=True,
            )
        )
    return [*found, *(_learnt(dataset.sel(cell=name), tau) for name in dataset.cell.values)]


def _learnt(data: "xarray.Dataset", tau: float) -> Claim:
    """Whether D_stsp is least near τ_pred, and below that of what was never forced."""
    name, intervals = str(data.cell.values), data.interval.values
    medians = data.state_space_distance.median("seed").values
    forced, unforced = medians[:-1], medians[-1]
    best = intervals[np.argmin(forced)]
    return statement(
        f"fig1a-{name}",
        f"{name.upper()}: the reconstruction is best where τ is near τ_pred",
        "minimum of D_stsp near τ_pred, below BPTT with normalised gradients (dashed)",
        {
            f"D_stsp at τ = {', '.join(map(str, intervals))}": forced,
            "D_stsp unforced": unforced,
            "D_stsp between halves of the data": float(data.floor),
        },
        source="Fig. 1 (a); smaller nets, shorter sequences and fewer updates here",
        criterion="the τ at which the median over seeds of D_stsp is least is within a factor of "
        f"{NEAR:g} (our own) of τ_pred = {tau:.1f}, and there it is below that without forcing",
        holds=1 / NEAR <= best / tau <= NEAR and forced.min() < unforced,
        picture=True,
    )


LOOKS: dict[str, dict[str, Any]] = {
    "plrnn": {"color": "#009E73", "marker": "s", "linestyle": "-"},
    "rnn": {"color": "#D55E00", "marker": "o", "linestyle": "-"},
    "lstm": {"color": "#0072B2", "marker": "v", "linestyle": "-"},
}


def figure(dataset: "xarray.Dataset") -> "Figure":
    """Both distances against τ, dashed without forcing, a line at τ_pred; the theorems' maps."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(8.4, 2.9))
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
    left.set(title="States; dashed: never forced")
    left.set_ylim(bottom=0)
    middle.set(title="Spectra", ylim=(0, 1.02))
    for name, color in (("chaos", "#D55E00"), ("cycle", "#0072B2")):
        norms = dataset.growth.sel(map=name) / np.log(10)
        right.plot(norms, color=color, label={"chaos": "tent map", "cycle": "stable cycle"}[name])
    right.set(xlabel="lag T − t (steps)", title="Theorems 1 and 2")
    right.set_ylabel(r"$\log_{10}\,\|\partial h_T/\partial h_t\|$")
    right.legend()
    handles, names = left.get_legend_handles_labels()
    fig.legend(handles, names, loc="outside upper center", ncols=len(names))
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
        "intervals": (5, 10, 20, 30, 50, 100, 200),
        "hidden_size": 30,
        "num_steps": 200,
        "batch_size": 32,
        "num_updates": 30_000,
        "learning_rate": 1e-3,
        "num_data": 100_000,
        "num_generated": 100_000,
        "num_seeds": 5,
    },
    doc=__doc__,
    citation="Mikhaeil, Monfared, Durstewitz 2022, On the difficulty of learning chaotic dynamics "
    "with RNNs, NeurIPS",
    figures={"fig1a": figure},
    traps=(
        "How the data were sampled was not read: 0.025 is chosen so that τ_pred is near the 30 "
        "steps of the paper's good LSTM.",
        "The authors' histogram drops what is outside of ±2 standard deviations and the first row "
        "of every axis, and a run that leaves it is NaN and left out of the mean; here all that is "
        "outside is one more cell, so that such a run is as far off as one that stands still.",
        "The dashed line is of sequences of 1000 steps there, clipped; here of the same T as the "
        "forced nets, each gradient brought to norm 1.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
