"""A GRU that has learnt to forecast the Lorenz flow has its Lyapunov exponents.

A GRU with a linear readout is trained by backpropagation through time to predict the next sample of
the flow. Then it runs on its own predictions, y_t = C h_t + d and h_{t+1} = GRU(h_t, y_t), as one
autonomous cell whose exponents `flow.lyapunov_exponents` measures, per unit of time.

Source: Vlachas et al. 2020, doi:10.1016/j.neunet.2020.02.016; the numbers are from the README of
its authors' code (pvlachas/RNN-Lyapunov-Spectrum).

    python experiments/papers/vlachas2020.py

Takes about four minutes on two shared cores.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray
from _kit import curves, fields, runs
from _lorenz import DT, lorenz_cell, orbit
from _paper import Paper

from gradflow import Cell, Params, flow, study, unroll
from gradflow.cells import gru
from gradflow.study import Claim, derived, numbers
from gradflow.study.figure import Figure
from gradflow.train import Descent, descend

PUBLISHED = (0.90752620, -0.0043020570, -14.312247)
"""The exponents of the authors' GRU, in descending order."""

TRUTH = (0.9056, 0.0, -14.5723)
"""Those of the flow, as the authors give them."""

WARM_UP = 10
BATCH, WINDOW = 32, 64


class Free(NamedTuple):
    """The state of a network that runs on its own predictions."""

    h: jax.Array
    y: jax.Array


@dataclass(frozen=True)
class Config(study.Config):
    """The network, its training, and the length of the orbits."""

    hidden_size: int = fields.hidden_size(48)
    num_updates: int = fields.positive(3000, help="Updates by Adam, whose rate falls to zero.")
    learning_rate: float = fields.positive(5e-3, help="First rate of Adam.")
    num_samples: int = fields.positive(20000, help="Samples of the flow to train on.")
    num_steps: int = fields.num_steps(20000)
    num_seeds: int = fields.num_seeds(3)


def free_running(cell: Cell, hidden_size: int) -> Cell:
    """Makes the autonomous cell of a network; its parameters are those of the cell, C and d."""

    def step(params: Params, carry: Free, x: jax.Array) -> tuple[Free, jax.Array]:
        del x
        h = cell.step(params["gru"], carry.h, carry.y)[0]
        y = params["C"] @ h + params["d"]
        return Free(h, y), y

    start = Free(jnp.zeros(hidden_size), jnp.zeros(3))
    return Cell(lambda key: {}, step, lambda: start)


def train(
    config: Config, cell: Cell, series: jax.Array, key: jax.Array
) -> tuple[Params, jax.Array]:
    """Trains one network on windows of the series; returns parameters and losses."""
    k_params, k_readout, k_batch = jax.random.split(key, 3)
    params = {
        "gru": cell.init(runs.cell_key(k_params)),
        "C": jax.random.normal(k_readout, (3, config.hidden_size)) / config.hidden_size**0.5,
        "d": jnp.zeros(3),
    }
    schedule = optax.cosine_decay_schedule(config.learning_rate, config.num_updates)
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))

    def loss(params: Params, batch: jax.Array) -> jax.Array:
        h = unroll(cell, params["gru"], batch[:-1]).outputs
        y = h @ params["C"].T + params["d"]
        return jnp.mean((y - batch[1:])[WARM_UP:] ** 2)

    def gradient(params: Params, key: jax.Array) -> tuple[Params, jax.Array]:
        starts = jax.random.randint(key, (BATCH,), 0, len(series) - WINDOW - 1)
        batch = series[starts[None] + jnp.arange(WINDOW + 1)[:, None]]
        value, slope = jax.value_and_grad(loss)(params, batch)
        return slope, value

    keys = jax.random.split(k_batch, config.num_updates)
    end, losses = descend(gradient, optimiser, Descent.start(optimiser, params), keys)
    return end.params, losses


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Measures the exponents of the flow and of the trained networks, and what these predict."""
    del once  # it takes minutes
    data = orbit(config.num_samples)
    mean, scale = data.mean(axis=0), data.std(axis=0)
    series = jnp.asarray((data - mean) / scale)
    cell = gru(3, config.hidden_size)
    free = free_running(cell, config.hidden_size)

    def one(key: jax.Array) -> tuple[jax.Array, ...]:
        params, losses = train(config, cell, series, key)
        h = unroll(cell, params["gru"], series[:200]).outputs[-1]
        carry = Free(h, params["C"] @ h + params["d"])
        inputs = jnp.zeros((config.num_steps, 0))
        options = {"num_exponents": 3, "burn_in": config.num_steps // 10, "carry": carry}
        found = flow.lyapunov_exponents(free, params, inputs, **options)
        made = unroll(free, params, inputs[:1000], carry=carry).outputs
        return found.exponents / DT, losses, made

    exponents, losses, made = runs.measure(one, runs.keys(config))
    find = jax.jit(lambda x: flow.lyapunov_exponents(lorenz_cell(), {}, x, burn_in=len(x) // 10))
    truth = find(jnp.zeros((config.num_steps, 0))).exponents / DT
    return xarray.Dataset(
        {
            "exponent": (("run", "index"), exponents, {"units": "nats per time unit"}),
            "flow_exponent": (("index",), np.asarray(truth), {"units": "nats per time unit"}),
            "loss": (("run", "update"), losses),
            "made": (("run", "step", "axis"), made * scale + mean),
            "data": (("step", "axis"), data[:1000]),
        }
    )


def claims(dataset: xarray.Dataset) -> list[Claim]:
    """The exponents of the flow, and those of the networks."""
    truth = dataset.flow_exponent.values
    found = dataset.exponent.median("run").values
    readme = "README of the authors' code"
    return [
        numbers(
            "exponents-flow",
            "The exponents of the Lorenz flow are 0.9056, 0 and -14.5723 per time unit.",
            TRUTH,
            truth,
            atol=0.03,
            source=readme,
        ),
        derived(
            "exponents-sum",
            "The exponents of the flow sum to its divergence, -(10 + 1 + 8/3).",
            -41 / 3,
            float(truth.sum()),
            atol=1e-3,
            source="the mean of log |det| of a flow is its divergence",
        ),
        numbers(
            "exponents-leading",
            "A trained GRU has the two leading exponents 0.9075 and -0.0043: medians of the "
            "networks.",
            PUBLISHED[:2],
            found[:2],
            atol=0.05,
            source=readme,
        ),
        numbers(
            "exponents-third",
            "Its third exponent is -14.31.",
            PUBLISHED[2],
            found[2],
            rtol=0.05,
            source=readme,
            shape=("the third exponent is negative and over ten times the first", found[2] < -9),
        ),
    ]


def figure(dataset: xarray.Dataset) -> Figure:
    """The attractor of the flow and of a network, and their exponents."""
    fig = study.figure.empty(6.4, 2.8)
    left, right = fig.subplots(1, 2, width_ratios=[1.3, 1])
    black, blue = curves.SHADES[:2]
    left.plot(dataset.data[:, 0], dataset.data[:, 2], color="0.6", lw=0.5, label="flow")
    made = dataset.made[0]
    left.plot(made[:, 0], made[:, 2], color=blue, lw=0.5, label="GRU on its own predictions")
    left.set(xlabel="x", ylabel="z", title="25 time units", ylim=(0, 62))
    left.legend(loc="upper left", ncols=2)
    right.plot(np.arange(1, 4), dataset.flow_exponent, "_", ms=24, color=black, label="flow")
    places = np.arange(1, 4) + np.zeros((dataset.sizes["run"], 1))
    right.plot(
        places.ravel(), np.ravel(dataset.exponent), "o", mfc="none", color=blue, label="GRUs"
    )
    right.set_xticks([1, 2, 3])
    right.set(xlabel="index i", ylabel=r"$\lambda_i$ per time unit", title="Lyapunov exponents")
    right.set_xlim(0.5, 3.5)
    right.legend()
    return fig


EXPERIMENT = Paper(
    name="papers/vlachas2020",
    config=Config,
    run=run,
    figure=figure,
    claims=claims,
    quick={"hidden_size": 8, "num_updates": 20, "num_samples": 300, "num_steps": 300},
    doc=__doc__,
    citation="Vlachas, Pathak, Hunt, Sapsis, Girvan, Ott, Koumoutsakos 2020, Backpropagation "
    "algorithms and reservoir computing in recurrent neural networks for the forecasting of "
    "complex spatiotemporal dynamics, doi:10.1016/j.neunet.2020.02.016",
    figures={"exponents": figure},
    traps=(
        "The paper was not read; size, rate and sampling interval (0.025) are chosen here.",
        "A GRU of 48 units on its own predictions has 51 exponents. The third is -6 here, where "
        "the flow has none: probably a direction of the GRU's own state that contracts more slowly "
        "than the flow's third. It was not looked for among the further exponents.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
