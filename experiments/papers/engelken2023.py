"""Gradient flossing drives Lyapunov exponents to zero and conditions the long-term Jacobian.

A random network of 80 units with one binary input channel, ::

    x_t = J tanh(x_{t-1}) + b + w s_t        J ~ N(0, 1/N), b ~ 0.1 U(0, 1), w ~ N(0, 1), s ∈ {0, 1}

is trained for 500 epochs of Adam at 0.001 on the mean of λ_i² over its first k Lyapunov exponents
alone, without a task. The exponents are computed over 55 steps with a QR at each; the first 15
steps are the burn-in. The script measures, before and after: the exponents, the largest singular
value of ∂x_55/∂x_0, and its condition number among the first k, σ_1/σ_k.

Source: Engelken 2023, arXiv:2312.17306, and its code (RainerEngelken/GradientFlossing).

    python experiments/papers/engelken2023.py

Takes about four minutes on one core: five networks each, and one of those whose 75 exponents are
flossed.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray
from _kit import curves, fields
from _paper import Paper

from gradflow import Cell, Params, flow, study
from gradflow.study import Claim, derived, statement
from gradflow.study.figure import Figure
from gradflow.train import Descent, descend

BURN_IN = 15
LEARNING_RATE = 1e-3
FALLS = {16: 1, 75: 10}
"""The least fall of log10 σ_1/σ_k that counts, by k; the paper prints none."""

ABSTRACT = (
    "abstract (read through a second source): flossing controls gradient norm and condition "
    "number; the bound is ours"
)


@dataclass(frozen=True)
class Config(study.Config):
    """The network, the number of exponents, and the length of the training."""

    units: int = fields.positive(80, help="Units N.")
    num_steps: int = fields.positive(55, help="Time steps of an epoch, including the burn-in.")
    num_exponents: tuple[int, ...] = fields.positive(
        (1, 16, 75), help="Numbers k of exponents that are flossed, one network for each."
    )
    epochs: int = fields.positive(500, help="Epochs of flossing.")
    num_seeds: int = fields.num_seeds(5)
    alone: tuple[int, ...] = fields.positive(
        (75,), help="Numbers k that are flossed in one network only, because they take long."
    )


def driven(units: int) -> Cell:
    """x_t = J tanh(x_{t-1}) + b + w s_t, initialised with gain 1."""

    def init(key: jax.Array) -> Params:
        k_J, k_b, k_w = jax.random.split(key, 3)
        return {
            "W_h": jax.random.normal(k_J, (units, units)) / jnp.sqrt(units),
            "W_x": jax.random.normal(k_w, (units, 1)),
            "b": 0.1 * jax.random.uniform(k_b, (units,)),
        }

    def step(params: Params, x: jax.Array, s: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = params["W_h"] @ jnp.tanh(x) + params["b"] + params["W_x"] @ s
        return x, x

    return Cell(init, step, lambda: jnp.zeros(units))


def signal(key: jax.Array, num_steps: int) -> jax.Array:
    """Samples a binary input, s_1 ... s_T."""
    return jax.random.bernoulli(key, 0.5, (num_steps, 1)).astype(float)


def floss(config: Config, k: int, seed: int) -> xarray.Dataset:
    """Flosses one network: exponents at every epoch, singular values before and after."""
    cell, adam = driven(config.units), optax.adam(LEARNING_RATE)
    key = jax.random.fold_in(jax.random.key(config.seed), seed)
    k_params, k_inputs, k_measure = jax.random.split(key, 3)
    first = cell.init(k_params)

    def loss(params: Params, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        found = flow.lyapunov_exponents(
            cell, params, inputs, num_exponents=k, burn_in=BURN_IN
        ).exponents
        return jnp.mean(found**2), found

    def gradient(params: Params, key: jax.Array) -> tuple[Params, jax.Array]:
        return jax.grad(loss, has_aux=True)(params, signal(key, config.num_steps))

    keys = jax.random.split(k_inputs, config.epochs)
    begun = Descent.start(adam, first)
    (last, _), found = jax.jit(partial(descend, gradient, adam))(begun, keys)
    inputs = signal(k_measure, config.num_steps)
    singular = jax.jit(lambda params: flow.log_singular_values(cell, params, inputs)[-1])
    width = max(config.num_exponents)
    return xarray.Dataset(
        {
            "exponents": (("epoch", "index"), _wide(np.asarray(found), width)),
            "log_singular": (
                ("when", "index"),
                _wide(np.stack([singular(first)[:k], singular(last)[:k]]), width),
            ),
        },
        coords={"epoch": np.arange(config.epochs), "when": ["before", "after"]},
    )


def _wide(values: np.ndarray, width: int) -> np.ndarray:
    """Pads with NaN to the largest k, so that all k share one array."""
    room = np.full((len(values), width), np.nan)
    room[:, : values.shape[1]] = values
    return room


def sums(config: Config) -> np.ndarray:
    """Computes Σ λ_i of all exponents of a network, and the mean of log |det J_t| in NumPy."""
    cell = driven(config.units)
    keys = jax.random.split(jax.random.key(config.seed), 2)
    params, inputs = cell.init(keys[0]), signal(keys[1], config.num_steps)
    found = flow.lyapunov_exponents(cell, params, inputs, burn_in=BURN_IN).exponents
    x, slopes = np.zeros(config.units), []
    J, w, b = (np.asarray(params[name]) for name in ("W_h", "W_x", "b"))
    for s in np.asarray(inputs):
        slopes.append(np.sum(np.log(1 - np.tanh(x) ** 2)))
        x = J @ np.tanh(x) + b + w @ s
    return np.array([np.sum(found), np.linalg.slogdet(J)[1] + np.mean(slopes[BURN_IN:])])


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Flosses every k and seed; dimensions count, seed, epoch, index, when."""

    def seeds(k: int) -> xarray.Dataset:
        count = 1 if k in config.alone else config.num_seeds
        parts = [once(f"k={k}-{s}", partial(floss, config, k, s)) for s in range(count)]
        return xarray.concat(parts, dim="seed").assign_coords(seed=np.arange(count))

    found = xarray.concat([seeds(k) for k in config.num_exponents], dim="count", join="outer")
    return found.assign_coords(count=list(config.num_exponents)).assign(
        sums=("way", sums(config)), units=((), config.units)
    )


def condition(dataset: xarray.Dataset, k: int) -> np.ndarray:
    """Computes log10 σ_1/σ_k of the long-term Jacobian; (when, seed)."""
    logs = dataset.log_singular.sel(count=k).dropna("seed", how="all")
    logs = logs.transpose("when", "index", "seed").values
    return (logs[:, 0] - logs[:, k - 1]) / curves.NATS


def claims(dataset: xarray.Dataset) -> list[Claim]:
    """The claims about the values of k that were run."""
    counts = dataset["count"].values
    return [
        sum_of_exponents(dataset),
        *(about_condition(dataset, k, fall) for k, fall in FALLS.items() if k in counts),
        *([about_exponents(dataset)] if 16 in counts else []),
        *([about_norm(dataset)] if 1 in counts else []),
    ]


def sum_of_exponents(dataset: xarray.Dataset) -> Claim:
    """The exponents at initialisation against the determinant."""
    return derived(
        "flossing-sum",
        "The exponents of a network at initialisation sum to the mean log |det| of its steps.",
        dataset.sums.values[1],
        dataset.sums.values[0],
        rtol=1e-6,
        source="log |det J| + mean Σ log(1 - tanh²(x)), in NumPy",
        digits=8,
    )


def about_condition(dataset: xarray.Dataset, k: int, fall: int) -> Claim:
    """The condition number among the first k singular values."""
    before, after = condition(dataset, k)
    falls = before - after
    return statement(
        f"flossing-kappa{k}",
        f"Flossing {k} exponents makes the long-term Jacobian better conditioned.",
        "the condition number falls",
        {
            f"median over networks of σ_1/σ_{k}, before and after": [
                10 ** np.median(before),
                10 ** np.median(after),
            ],
            "factor of the fall in each network": 10**falls,
        },
        source=ABSTRACT,
        criterion=f"σ_1/σ_{k} of ∂x_T/∂x_0 falls in every network, and in the median of its log by "
        f"a factor above 1e{fall}",
        holds=(falls > 0).all() and np.median(falls) > fall,
    )


def about_exponents(dataset: xarray.Dataset) -> Claim:
    """The exponents that are flossed, k = 16."""
    exponents = dataset.exponents.sel(count=16)
    first = np.nanmax(np.abs(exponents.isel(epoch=0).values))
    last = np.nanmax(np.abs(exponents.isel(epoch=slice(-20, None)).mean("epoch").values))
    return statement(
        "flossing-exponents16",
        "Flossing 16 exponents drives all of them to zero.",
        "exponents go to zero",
        {"largest |λ_i| of all networks, before and after": [first, last]},
        source="the figure of exponents against epoch; the bound is ours",
        criterion="the mean of each λ_i over the last 20 epochs is between -0.15 and 0.15",
        holds=last < 0.15,
    )


def about_norm(dataset: xarray.Dataset) -> Claim:
    """The norm of the long-term Jacobian, k = 1."""
    log10 = dataset.log_singular.sel(count=1).isel(index=0).median("seed").values / curves.NATS
    return statement(
        "flossing-norm1",
        "After flossing one exponent gradients neither vanish nor explode.",
        "gradients neither vanish nor explode",
        {"median over networks of σ_1 of ∂x_T/∂x_0, before and after": 10**log10},
        source=ABSTRACT,
        criterion="the median of σ_1 is below 1e-3 before and from 0.01 to 100 after",
        holds=log10[0] < -3 and abs(log10[1]) < 2,
    )


def figure(dataset: xarray.Dataset) -> Figure:
    """Exponents against the epoch, and the Jacobian's singular values before and after."""
    counts = dataset["count"].values
    fig = study.figure.empty(2.4 * len(counts) + 0.8, 4.6)
    tops, bottoms = fig.subplots(2, len(counts), squeeze=False, sharey="row")
    black, blue, orange = curves.SHADES[:3]
    for top, bottom, k in zip(tops, bottoms, counts, strict=True):
        one = dataset.sel(count=k).isel(seed=0)
        shown = np.unique(np.linspace(0, k - 1, min(k, 8)).astype(int))
        for index, color in zip(shown, curves.shades(len(shown)), strict=True):
            top.plot(one.epoch, one.exponents.isel(index=index), color=color, lw=0.8)
        top.axhline(0, color=orange, lw=0.8, ls=":")
        top.set(title=f"k = {k}", xlabel="epoch")
        for when, color, marker in (("before", black, "o"), ("after", blue, "s")):
            values = one.log_singular.sel(when=when).values[:k] / curves.NATS
            bottom.plot(np.arange(1, k + 1), values, color=color, marker=marker, ms=3, label=when)
        bottom.set(xlabel="index i", xlim=(0, k + 1))
        bottom.xaxis.get_major_locator().set_params(integer=True)
    tops[0].set_ylabel(r"exponents $\lambda_i$ (nats per step)")
    bottoms[0].set_ylabel(r"$\log_{10}\,\sigma_i$ of $\partial x_T/\partial x_0$")
    bottoms[-1].legend()
    return fig


EXPERIMENT = Paper(
    name="papers/engelken2023",
    config=Config,
    run=run,
    figure=figure,
    claims=claims,
    quick={"units": 8, "num_exponents": (1, 4), "num_steps": 25, "epochs": 5},
    full={"num_exponents": (1, 16, 32, 75), "alone": ()},
    doc=__doc__,
    citation="Engelken 2023, Gradient flossing: improving gradient descent through dynamic control "
    "of Jacobians, arXiv:2312.17306",
    figures={"flossing": figure},
    traps=(
        "A plain float64 product of 55 steps cannot show a condition number above about 1e18, "
        "because smaller singular values are lost to rounding. They are measured as logarithms.",
        "σ_1/σ_16 before flossing is 1e4 in one network and 4e5 in another. After flossing it is "
        "50 to 100, so the size of the fall depends on the network.",
        "The panels of the paper's figures were not read. The figure here follows the text.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
