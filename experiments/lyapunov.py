"""The largest Lyapunov exponent tells how long a perturbation lasts and which networks learn.

A tanh network with W_h of standard deviation gain/√hidden is driven by weak noise. Measured are its
spectrum of exponents λ_1 ≥ λ_2 ≥ ... against the gain and the width; the number of steps after
which two copies that start a perturbation of 1e-7 apart, relative to the size of the state, are a
tenth of that size apart; and how well networks of each gain learn to repeat what they read some
steps before. The prediction for the time to lose a perturbation is::

    steps = log(0.1 / 1e-7) / λ_1

Three claims, each within a factor of 1.5 and by 95 % intervals over seeds: the largest exponent
crosses zero at a gain that does not depend on the width; above it a perturbation is lost after the
predicted time; and networks learn best near the crossing. (The delay must be long enough: a delay
of 5 steps instead of 20 is learnt by every network that is not chaotic.)

Source: Sompolinsky, Crisanti, Sommers 1988, doi:10.1103/PhysRevLett.61.259 (chaos above gain 1
without inputs); Engelken, Wolf, Abbott 2023, doi:10.1103/PhysRevResearch.5.043044 (spectra);
Bertschinger & Natschläger 2004, doi:10.1162/089976604323057443 (computing at the edge of chaos).

    python experiments/lyapunov.py
    python experiments/lyapunov.py --hidden_sizes=64,128,256 --num_steps=2000

Takes about a minute on two cores at the defaults.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray
from _kit import decisions, fields, outcomes, rates, runs

from gradflow import Params, flow, statistics, study, unroll
from gradflow.cells import rnn
from gradflow.study.figure import Axes, Figure
from gradflow.tasks import delayed_copy
from gradflow.train import Descent, descend

LOST = 0.1
"""The distance of two copies, relative to the state, at which the perturbation is lost."""

WITHIN = 1.5
"""The factor within which two numbers count as equal in the claims."""

LOOKS = (
    {"color": "#56B4E9", "linestyle": ":", "marker": "o"},
    {"color": "#0072B2", "linestyle": "--", "marker": "s"},
    {"color": "#000000", "linestyle": "-", "marker": "^"},
    {"color": "#D55E00", "linestyle": "-.", "marker": "v"},
    {"color": "#009E73", "linestyle": (0, (8, 2)), "marker": "D"},
)

GAIN_COLORS = ("#E69F00", "#CC79A7", "#661100", "#009E73")
"""The colours of the gains whose spectra are drawn; as many gains are drawn."""

TIED = 0.01
"""Accuracies this close to the best one count as equal to it."""


@dataclass(frozen=True)
class Config(study.Config):
    """Which networks, for how long, and what they learn."""

    num_seeds: int = fields.num_seeds(5)
    gains: tuple[float, ...] = fields.gains((0.5, 0.75, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0))
    hidden_sizes: tuple[int, ...] = fields.positive(
        (16, 32, 64), help="Widths: hidden units of a network."
    )
    input_std: float = fields.input_std(0.1)
    num_steps: int = fields.positive(600, help="Time steps that are measured.")
    burn_in: int = fields.positive(100, help="Time steps before them.")
    perturbation: float = fields.positive(
        1e-7, help="Initial distance of two copies, relative to the state."
    )
    delay: int = fields.positive(20, help="Delay of the delayed copy, in steps.")
    num_updates: int = fields.num_updates(300)
    batch_size: int = fields.batch_size(16)
    learning_rate: float = fields.learning_rate(1e-3)


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Measures every network; dimensions hidden_size, gain, run (a seed)."""
    parts = [
        once(f"hidden_size={size}", partial(_measure, config, size))
        for size in study.progress(config.hidden_sizes, "widths")
    ]
    learning = once("learning", partial(_train, config))
    networks = xarray.concat(parts, dim="hidden_size", join="outer")
    return xarray.merge([networks, learning]).assign_attrs(
        perturbation=config.perturbation, delay=config.delay
    )


def _measure(config: Config, size: int) -> xarray.Dataset:
    cell = rnn(size, size, recurrent_init="normal(gain=1)", input_init="identity")

    def one_run(gain: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        k_params, k_inputs, k_push = jax.random.split(key, 3)
        params = cell.init(k_params)
        params |= {"W_h": gain * params["W_h"]}
        num_steps = config.burn_in + config.num_steps
        x = config.input_std * jax.random.normal(k_inputs, (num_steps, size))
        found = flow.lyapunov_exponents(cell, params, x, burn_in=config.burn_in)
        push = jax.random.normal(k_push, (size,))
        return found.exponents, _steps_to_lose(config, cell.step, params, x, push)

    gains = jnp.repeat(jnp.asarray(config.gains), config.num_seeds)
    keys = jnp.tile(runs.keys(config), len(config.gains))
    exponents, steps = runs.measure(one_run, gains, keys)
    shape = 1, len(config.gains), config.num_seeds
    dims = ("hidden_size", "gain", "run")
    return xarray.Dataset(
        {
            "exponent": (
                (*dims, "index"),
                exponents.reshape(*shape, size),
                {"units": "nats per step"},
            ),
            "steps_to_lose": (dims, steps.reshape(shape), {"units": "steps"}),
        },
        coords={
            "hidden_size": [size],
            "gain": ("gain", list(config.gains), {"units": "1"}),
            "index": np.arange(size),
        },
    )


def _steps_to_lose(
    config: Config, step: Callable, params: Params, x: jax.Array, push: jax.Array
) -> jax.Array:
    """Steps until the distance of two copies is LOST of the state's norm; infinite if never."""
    h = jnp.zeros_like(push)
    h = jax.lax.fori_loop(0, config.burn_in, lambda t, h: step(params, h, x[t])[0], h)
    other = h + config.perturbation * jnp.linalg.norm(h) * push / jnp.linalg.norm(push)

    def both(pair: tuple, x: jax.Array) -> tuple:
        a, b = (step(params, h, x)[0] for h in pair)
        return (a, b), jnp.linalg.norm(a - b) / jnp.linalg.norm(a)

    _, distance = jax.lax.scan(both, (h, other), x[config.burn_in :])
    return jnp.where(jnp.any(distance >= LOST), 1.0 + jnp.argmax(distance >= LOST), jnp.inf)


def _train(config: Config) -> xarray.Dataset:
    """The accuracy after training, of networks of the largest width, in float32."""
    size = config.hidden_sizes[-1]
    task = delayed_copy(delay=config.delay, num_steps=3 * config.delay)
    cell = rnn(task.input_size, size, recurrent_init="normal(gain=1)")
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(config.learning_rate))

    def predictions(params: dict, inputs: jax.Array) -> jax.Array:
        outputs = unroll(cell, params["cell"], inputs).outputs
        return outputs @ params["readout"]

    def loss(params: dict, key: jax.Array) -> jax.Array:
        batch = jax.tree.map(_single, task.sample(key, config.batch_size))
        logits = predictions(params, batch.inputs)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets)
        return jnp.sum(losses * batch.weights) / jnp.sum(batch.weights)

    def one_run(gain: jax.Array, key: jax.Array) -> jax.Array:
        k_params, k_test, k_train = jax.random.split(key, 3)
        own = cell.init(k_params)
        own |= {"W_h": gain * own["W_h"]}
        params = {"cell": own, "readout": jnp.zeros((size, task.output_size))}
        params = jax.tree.map(_single, params)

        def gradient(params: dict, key: jax.Array) -> tuple[dict, None]:
            return jax.grad(loss)(params, key), None

        keys = jax.random.split(k_train, config.num_updates)
        (params, _), _ = descend(gradient, optimizer, Descent.start(optimizer, params), keys)
        batch = jax.tree.map(_single, task.sample(k_test, 8 * config.batch_size))
        correct = predictions(params, batch.inputs).argmax(axis=-1) == batch.targets
        return jnp.sum(correct * batch.weights) / jnp.sum(batch.weights)

    gains = jnp.asarray(config.gains, jnp.float32)
    by_seed = jax.vmap(jax.vmap(one_run, (None, 0)), (0, None))
    accuracy = jax.jit(by_seed)(gains, runs.keys(config))
    return xarray.Dataset(
        {"accuracy": (("gain", "run"), np.asarray(accuracy, float), {"units": "1"})},
        coords={"gain": ("gain", list(config.gains), {"units": "1"})},
    )


def _single(leaf: jax.Array) -> jax.Array:
    """The array in float32 if it is floating, the precision of the training."""
    return leaf.astype(jnp.float32) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


def crossing(dataset: xarray.Dataset) -> np.ndarray:
    """Finds the gain at which the largest exponent first crosses zero, (hidden_size, run)."""
    largest = dataset.exponent.isel(index=0).sortby("gain")
    by_run = largest.transpose("hidden_size", "run", "gain")
    return np.apply_along_axis(partial(rates.crossing, by_run.gain.values), -1, by_run.values)


def over_predicted(dataset: xarray.Dataset) -> xarray.DataArray:
    """Computes the time to lose the perturbation over the predicted one; NaN where it is kept."""
    largest = dataset.exponent.isel(index=0)
    predicted = np.log(LOST / dataset.attrs["perturbation"]) / largest
    lost = np.isfinite(dataset.steps_to_lose) & (largest > 0)
    return (dataset.steps_to_lose / predicted).where(lost)


def figure(dataset: xarray.Dataset) -> Figure:
    """Largest exponent, spectra, time to lose a perturbation, and the accuracy after training."""
    fig = study.figure.empty(7.0, 5.4)
    (a, b), (c, d) = fig.subplots(2, 2)
    _draw_largest(a, dataset)
    _draw_spectra(b, dataset)
    _draw_times(c, dataset)
    _draw_learning(d, dataset)
    return fig


def _draw_largest(ax: Axes, dataset: xarray.Dataset) -> None:
    for index, size in enumerate(dataset.hidden_size.values):
        values = dataset.exponent.sel(hidden_size=size).isel(index=0)
        look = {**LOOKS[index % len(LOOKS)], "markevery": 1, "label": f"{size}"}
        study.figure.band(ax, dataset.gain, values, "run", **look)
    gains = np.linspace(float(dataset.gain.min()), 1, 50)
    ax.plot(gains, np.log(gains), color="#D55E00", lw=0.8, label="log gain")
    ax.axhline(0, color="#000000", lw=0.6)
    ax.set(xlabel="gain", ylabel="λ₁ (nats per step)", title="Largest exponent, by width")
    ax.legend()


def _draw_spectra(ax: Axes, dataset: xarray.Dataset) -> None:
    size = int(dataset.hidden_size[-1])
    spectra = dataset.exponent.sel(hidden_size=size)
    places = np.unique(
        np.linspace(0, dataset.sizes["gain"] - 1, len(GAIN_COLORS)).round().astype(int)
    )
    for index, place in enumerate(places):
        look = {**LOOKS[index], "color": GAIN_COLORS[index]}
        look["label"] = f"{float(dataset.gain[place]):g}"
        study.figure.band(ax, (dataset.index + 1) / size, spectra.isel(gain=place), "run", **look)
    ax.axhline(0, color="#000000", lw=0.6)
    ax.set(xlabel="index / width", ylabel="λ (nats per step)", title=f"Spectra at width {size}")
    ax.legend(title="gain", loc="lower left")


def _draw_times(ax: Axes, dataset: xarray.Dataset) -> None:
    from matplotlib import ticker

    first = dataset.attrs["perturbation"]
    ax.set(
        xlabel="λ₁ (nats per step)",
        ylabel=f"steps from {first:g} to {LOST:g}",
        title="Time to lose a perturbation, by width",
    )
    lost = over_predicted(dataset).notnull()
    if not bool(lost.any()):
        ax.text(0.5, 0.5, "no perturbation was lost", transform=ax.transAxes, ha="center")
        return
    largest = dataset.exponent.isel(index=0).where(lost)
    for index, size in enumerate(dataset.hidden_size.values):
        look: Any = {**LOOKS[index % len(LOOKS)], "linestyle": "none", "label": f"{size}"}
        x, y = largest.sel(hidden_size=size), dataset.steps_to_lose.sel(hidden_size=size)
        ax.plot(x.values.ravel(), y.values.ravel(), **look)
    line = np.geomspace(float(largest.min()), float(largest.max()), 50)
    ax.plot(line, np.log(LOST / first) / line, color="#D55E00", lw=1.0, label="predicted")
    ax.set(xscale="log", yscale="log")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(ticker.NullFormatter())
    ax.legend()


def _draw_learning(ax: Axes, dataset: xarray.Dataset) -> None:
    largest = dataset.exponent.isel(index=0, hidden_size=-1).median("run")
    study.figure.band(ax, largest, dataset.accuracy, "run", **{**LOOKS[2], "markevery": 1})
    ax.axvline(0, color="#000000", lw=0.6)
    ax.axhline(0.5, **outcomes.REFERENCE)
    ax.annotate("chance", (0.02, 0.5), xycoords=("axes fraction", "data"), fontsize=8,
                xytext=(0, -9), textcoords="offset points", color="#606060")  # fmt: skip
    ax.set_ylim(bottom=0.45)
    ax.set(
        xlabel="λ₁ at initialisation (nats per step)",
        ylabel="accuracy",
        title=f"Delayed copy, {dataset.attrs['delay']} steps, after training",
    )


def by_seed(values: xarray.DataArray) -> np.ndarray:
    """Computes the mean of each seed, whose widths and gains start from the same key."""
    return values.mean([name for name in values.dims if name != "run"]).values


def best_gains(dataset: xarray.Dataset) -> np.ndarray:
    """Finds for each seed the geometric mean of the gains within TIED of the best accuracy."""
    good = dataset.accuracy >= dataset.accuracy.max("gain") - TIED
    return np.exp(np.log(dataset.gain).where(good).mean("gain")).values


def of_finite(values: np.ndarray) -> statistics.Estimate:
    """Estimates the mean of the finite values; NaN for fewer than two."""
    finite = values[np.isfinite(values)]
    return statistics.estimate(finite if len(finite) > 1 else np.full(1, np.nan))


def summary(dataset: xarray.Dataset) -> str:
    """A table of the widths, and a sentence about the trained networks."""
    lost = over_predicted(dataset)
    rows = [
        {
            "width": str(size),
            "λ₁ = 0 at gain": _text(of_width),
            "time to lose / predicted": _text(by_seed(lost.sel(hidden_size=size))),
        }
        for size, of_width in zip(dataset.hidden_size.values, crossing(dataset), strict=True)
    ]
    accuracy = dataset.accuracy.median("run")
    best = accuracy.idxmax("gain")
    return (
        f"{study.table(rows)}\nAfter training the median accuracy is best, "
        f"{float(accuracy.max()):.2f}, at gain {float(best):g}; it is {float(accuracy[0]):.2f} at "
        f"the smallest gain and {float(accuracy[-1]):.2f} at the largest."
    )


def _text(values: np.ndarray) -> str:
    found = of_finite(values)
    return f"{found:.2f}" if np.isfinite(found.value) else "-"


def claims(dataset: xarray.Dataset) -> list[study.Claim]:
    """Whether the crossing depends on the width, the prediction holds, and networks learn there."""
    several = dataset.sizes["hidden_size"] > 1
    return [*([_same_gain(dataset)] if several else []), _time(dataset), _learn(dataset)]


def _within(log_ratio: statistics.Estimate) -> bool | None:
    return decisions.within(log_ratio, -np.log(WITHIN), np.log(WITHIN))


def _same_gain(dataset: xarray.Dataset) -> study.Claim:
    gains = dict(zip(dataset.hidden_size.values, np.log(crossing(dataset)), strict=True))
    ratios = {(a, b): of_finite(gains[a] - gains[b]) for a, b in itertools.combinations(gains, 2)}
    return study.claim(
        "same-gain-at-every-width",
        "The largest exponent crosses zero at a gain that does not depend on the width.",
        decisions.every(map(_within, ratios.values())),
        measured={
            f"gain at width {a} over that at {b}": ratio.map(np.exp)
            for (a, b), ratio in ratios.items()
        },
        criterion=f"the ratio of the gains of any two widths lies within a factor of {WITHIN:g}, "
        "by its 95 % interval",
    )


def _time(dataset: xarray.Dataset) -> study.Claim:
    ratio = of_finite(by_seed(over_predicted(dataset)))
    return study.claim(
        "time-as-predicted",
        "A perturbation is lost after the time that the largest exponent predicts.",
        decisions.within(ratio, 1 / WITHIN, WITHIN),
        measured={"time to lose a perturbation over the predicted one": ratio},
        criterion=f"the ratio lies within a factor of {WITHIN:g}, by its 95 % interval",
    )


def _learn(dataset: xarray.Dataset) -> study.Claim:
    edge = of_finite(crossing(dataset)[-1]).value  # of the largest width, which was trained
    ratio = of_finite(np.log(best_gains(dataset) / edge))
    return study.claim(
        "learn-best-at-crossing",
        "Networks learn best at the gain at which the largest exponent crosses zero.",
        _within(ratio),
        measured={"best gain over that of the crossing": ratio.map(np.exp)},
        criterion=f"the ratio lies within a factor of {WITHIN:g}, by its 95 % interval",
    )


EXPERIMENT = study.Experiment(
    name="lyapunov",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    claims=claims,
    section="flow",
    order=12,
    gallery={"lyapunov": study.Picture()},
    quick={
        "gains": (0.5, 1.2, 3.0),
        "hidden_sizes": (4, 8),
        "num_steps": 80,
        "burn_in": 20,
        "num_seeds": 3,
        "delay": 2,
        "num_updates": 10,
        "batch_size": 4,
    },
    doc=__doc__,
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
