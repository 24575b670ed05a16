"""A deep RNN forecasts a sum of two sines better than simple baselines, and one unit does not.

The data are 10,000 series of 50 steps, two sines of random frequency and phase plus uniform noise,
sampled with NumPy's seed 42: 7,000 for training and 2,000 for validation. The two naive forecasts
have no free parameters and must match to the last digits of float32. Linear models, an RNN of one
unit and a deep RNN are trained for 20 epochs of Adam with batches of 32, as in the notebook.

Source: Géron 2019, Hands-On Machine Learning, 2nd ed., chapter 15, and its notebook.

    python experiments/papers/geron2019.py

Takes about a minute on two cores.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray
from _kit import curves, fields, runs
from _paper import Paper

from gradflow import study, unroll
from gradflow.cells import rnn
from gradflow.spec import check_name
from gradflow.study import Claim, numbers, statement
from gradflow.study.figure import Figure
from gradflow.tasks.forecasting import two_sines
from gradflow.train import Descent, descend

STEPS = 50
TRAIN, VALID = slice(0, 7000), slice(7000, 9000)
BATCH = 32
NOTEBOOK = "15_processing_sequences_using_rnns_and_cnns.ipynb (saved output)"
NAIVE = {1: 0.020211367, 10: 0.25697407}
"""The published validation errors of repeating the last value, by the steps ahead."""


class Published(NamedTuple):
    """A trained model of the notebook: validation error, our relative tolerance, Adam's rate."""

    error: float
    tolerance: float
    rate: float


MODELS = {
    "linear": Published(0.00417, 0.2, 1e-3),
    "one_unit": Published(0.01088, 0.1, 5e-3),
    "deep": Published(0.00291, 0.2, 1e-3),
    "linear_ten": Published(0.0187, 0.12, 1e-3),
}


@dataclass(frozen=True)
class Config(study.Config):
    """The models, and the length of their training."""

    models: tuple[str, ...] = study.field(
        tuple(MODELS), help="Names of the models that are trained."
    )
    epochs: int = fields.positive(20, help="Epochs of 7,000 series.")
    num_seeds: int = fields.num_seeds(3)


def glorot(key: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Samples a Glorot-uniform matrix as Keras does."""
    bound = np.sqrt(6 / sum(shape))
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


Model = tuple[Callable[[jax.Array], Any], Callable[[Any, jax.Array], jax.Array]]
"""key -> parameters, and (parameters, series (B, T)) -> forecast (B, steps ahead)."""


def linear(ahead: int) -> Model:
    """A linear model of the 50 values."""

    def init(key: jax.Array) -> Any:
        return {"W": glorot(key, (ahead, STEPS)), "b": jnp.zeros(ahead)}

    return init, lambda params, x: x @ params["W"].T + params["b"]


def recurrent(sizes: tuple[int, ...]) -> Model:
    """A stack of tanh layers; the last output of its last layer, of one unit, is the forecast."""
    pairs = zip((1, *sizes[:-1]), sizes, strict=True)
    cells = [rnn(n_in, n, input_init="glorot") for n_in, n in pairs]

    def forecast(params: Any, x: jax.Array) -> jax.Array:
        h = x.T[:, :, None]
        for cell, layer in zip(cells, params, strict=True):
            h = unroll(cell, layer, h).outputs
        return h[-1]

    def init(key: jax.Array) -> Any:
        keys = jax.random.split(key, len(cells))
        return [cell.init(k) for cell, k in zip(cells, keys, strict=True)]

    return init, forecast


def train(model: Model, rate: float, epochs: int, data: tuple, key: jax.Array) -> jax.Array:
    """Trains a model with Adam, and computes its validation error."""
    init, forecast = model
    x, y, x_valid, y_valid = data
    optimiser = optax.adam(rate, eps=1e-7)

    def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.mean((forecast(params, x) - y) ** 2)

    def gradient(params: Any, batch: tuple) -> tuple[Any, None]:
        index, valid = batch

        def masked(params: Any) -> jax.Array:
            error = jnp.mean((forecast(params, x[index]) - y[index]) ** 2, axis=1)
            return jnp.sum(error * valid) / jnp.sum(valid)

        return jax.grad(masked)(params), None

    def epoch(descent: Descent, key: jax.Array) -> tuple[Descent, None]:
        order = jax.random.permutation(key, len(x))
        padding = -len(x) % BATCH  # the last batch of an epoch is smaller, as in Keras
        index = jnp.concatenate([order, order[:padding]]).reshape(-1, BATCH)
        valid = (jnp.arange(index.size) < len(x)).reshape(-1, BATCH)
        return descend(gradient, optimiser, descent, (index, valid))

    k_init, k_order = jax.random.split(key)
    first = Descent.start(optimiser, init(k_init))
    (params, _), _ = jax.lax.scan(epoch, first, jax.random.split(k_order, epochs))
    return loss(params, x_valid, y_valid)


def naive(series: np.ndarray) -> float:
    """Computes the validation error of repeating the last value, in float32 as the notebook."""
    return float(np.mean((series[VALID, STEPS:] - series[VALID, STEPS - 1 : STEPS]) ** 2))


def split(series: np.ndarray) -> tuple[np.ndarray, ...]:
    """Splits series into inputs and targets for training and validation, in float64."""
    series = series.astype(float)
    x, y = series[:, :STEPS], series[:, STEPS:]
    return x[TRAIN], y[TRAIN], x[VALID], y[VALID]


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Measures naive and trained models; dimensions model, seed, ahead, time."""
    for name in config.models:
        check_name("model", name, MODELS)
    one, ten = two_sines(10000, STEPS + 1), two_sines(10000, STEPS + 10)
    models = {
        "linear": (linear(1), one),
        "one_unit": (recurrent((1,)), one),
        "deep": (recurrent((20, 20, 1)), one),
        "linear_ten": (linear(10), ten),
    }

    def fit(name: str) -> xarray.Dataset:
        model, series = models[name]
        data = tuple(map(jnp.asarray, split(series)))
        many = jax.jit(jax.vmap(partial(train, model, MODELS[name].rate, config.epochs, data)))
        return xarray.Dataset({"trained": (("seed",), np.asarray(many(runs.keys(config))))})

    names = study.progress(config.models, "models")
    parts = [once(f"model={name}", partial(fit, name)) for name in names]
    trained = xarray.concat(parts, dim="model").assign_coords(model=list(config.models))
    return trained.assign(
        naive=(("ahead",), [naive(series) for series in (one, ten)]),
        example=(("time",), ten[VALID][0].astype(float)),
    ).assign_coords(ahead=list(NAIVE))


def claims(dataset: xarray.Dataset) -> list[Claim]:
    """The naive forecasts, and the models that were trained."""
    medians = {
        str(name): float(dataset.trained.sel(model=name).median()) for name in dataset.model.values
    }
    return [
        *(naive_forecast(dataset, *at) for at in (("naive", 1, 1e-7), ("naive_ten", 10, 1e-6))),
        *(error_of_model(dataset, name, medians[name]) for name in MODELS if name in medians),
        *([order(dataset, medians)] if set(medians) == set(MODELS) else []),
    ]


def naive_forecast(dataset: xarray.Dataset, name: str, ahead: int, atol: float) -> Claim:
    """The error of repeating the last value."""
    return numbers(
        f"table-{name}",
        f"Repeating the last value has the published error (steps ahead: {ahead}).",
        NAIVE[ahead],
        float(dataset.naive.sel(ahead=ahead)),
        atol=atol,
        source=NOTEBOOK,
        exact=True,
        digits=8,
    )


def error_of_model(dataset: xarray.Dataset, name: str, median: float) -> Claim:
    """The error of a trained model."""
    ahead = 10 if "ten" in name else 1
    return numbers(
        f"table-{name}",
        f"The model '{name}' has the published error after 20 epochs (median over seeds).",
        MODELS[name].error,
        median,
        rtol=MODELS[name].tolerance,
        source=NOTEBOOK,
        shape=("it beats the naive forecast", median < dataset.naive.sel(ahead=ahead)),
    )


def order(dataset: xarray.Dataset, medians: dict[str, float]) -> Claim:
    """The order of the models."""
    deep, linear, one_unit = (medians[name] for name in ("deep", "linear", "one_unit"))
    return statement(
        "table-order",
        "A deep RNN beats the linear model, and an RNN of one unit does not.",
        "0.00291 < 0.00417 < 0.01088",
        {"deep / linear / one unit": [deep, linear, one_unit]},
        source=NOTEBOOK,
        criterion="the medians are in the published order, and below the naive forecast",
        holds=deep < linear < one_unit < dataset.naive.values[0],
    )


def figure(dataset: xarray.Dataset) -> Figure:
    """One series, and the measured and published validation errors."""
    fig = study.figure.empty(7.0, 2.6)
    left, right = fig.subplots(1, 2)
    blue, orange = curves.SHADES[1:3]
    time = np.arange(dataset.sizes["time"])
    left.plot(time[:STEPS], dataset.example[:STEPS], ".-", color=blue, lw=0.8)
    left.plot(time[STEPS:], dataset.example[STEPS:], "x", color=orange)
    left.set(xlabel="t", ylabel="x(t)", title="A series; crosses are the targets")
    names = ["naive", "naive_ten", *map(str, dataset.model.values)]
    found = [*dataset.naive.values, *dataset.trained.median("seed").values]
    published = [*NAIVE.values(), *(MODELS[name].error for name in names[2:])]
    places = np.arange(len(names))
    right.plot(published, places, "o", mfc="none", color="0.3", ms=7, label="published")
    right.plot(found, places, "x", color=orange, label="measured")
    right.set(xscale="log", xlabel="validation error (MSE)", title="One and ten steps ahead")
    right.set_yticks(
        places, [name.replace("_ten", ", ten steps").replace("_", " ") for name in names]
    )
    right.invert_yaxis()
    right.legend()
    return fig


EXPERIMENT = Paper(
    name="papers/geron2019",
    config=Config,
    run=run,
    figure=figure,
    claims=claims,
    quick={"models": ("linear", "linear_ten"), "epochs": 1, "num_seeds": 1},
    doc=__doc__,
    citation="Géron 2019, Hands-On Machine Learning with Scikit-Learn, Keras, and TensorFlow, 2nd "
    "edition, chapter 15; the notebook of ageron/handson-ml2",
    figures={"table": figure},
    traps=(
        "The notebook prints one run of each model. Its sequence-to-sequence error changes between "
        "0.0058 and 0.0096 within two epochs, so that only ranges can be compared.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
