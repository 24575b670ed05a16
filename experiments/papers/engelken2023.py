"""Gradient flossing drives Lyapunov exponents to zero, and the long-term Jacobian gets conditioned.

A random net of 80 units, driven by one binary channel, ::

    x_t = J tanh(x_{t-1}) + b + w s_t        J ~ N(0, 1/N), b ~ 0.1 U(0, 1), w ~ N(0, 1), s ∈ {0, 1}

is trained on no task, for 500 epochs of Adam at 0.001, but on mean λ_i² of its first k exponents,
of 55 steps with a QR at each, of which the first 15 do not count. Before and after: the exponents,
the largest singular value of ∂x_55/∂x_0, and its condition number among the first k, σ_1/σ_k.

Source: Engelken 2023, arXiv:2312.17306, and its code (RainerEngelken/GradientFlossing).

    python experiments/papers/engelken2023.py

Takes about half a minute on one core.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _claims import OWN, Claim, Paper, numbers, statement, verdicts

from gradflow import Cell, flow, study

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

    from gradflow import Params

BURN_IN = 15
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Config(study.Config):
    """The net, how many exponents are flossed, and how long."""

    units: int = study.field(80, help="Units N.", positive=True)
    num_steps: int = study.field(
        55, help="Steps of an epoch, with those of burn-in.", positive=True
    )
    num_exponents: tuple[int, ...] = study.field(
        (1, 16, 75), help="k, the exponents that are flossed; a net for each.", positive=True
    )
    epochs: int = study.field(500, help="Epochs of flossing.", positive=True)
    num_seeds: int = study.field(1, help="Nets for each k, one after the other.", positive=True)


def driven(units: int) -> Cell:
    """x_t = J tanh(x_{t-1}) + b + w s_t, drawn with gain 1."""

    def init(key: jax.Array) -> "Params":
        k_J, k_b, k_w = jax.random.split(key, 3)
        return {
            "W_h": jax.random.normal(k_J, (units, units)) / jnp.sqrt(units),
            "W_x": jax.random.normal(k_w, (units, 1)),
            "b": 0.1 * jax.random.uniform(k_b, (units,)),
        }

    def step(params: "Params", x: jax.Array, s: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = params["W_h"] @ jnp.tanh(x) + params["b"] + params["W_x"] @ s
        return x, x

    return Cell(init, step, lambda: jnp.zeros(units))


def signal(key: jax.Array, num_steps: int) -> jax.Array:
    """A binary input, s_1 ... s_T."""
    return jax.random.bernoulli(key, 0.5, (num_steps, 1)).astype(float)


def floss(config: Config, k: int, seed: int) -> "xarray.Dataset":
    """Flosses one net: its exponents at every epoch, and its Jacobian before and after."""
    import xarray

    cell, adam = driven(config.units), optax.adam(LEARNING_RATE)
    key = jax.random.fold_in(jax.random.key(config.seed), seed)
    k_params, k_inputs, k_look = jax.random.split(key, 3)
    first = cell.init(k_params)

    def loss(params: "Params", inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        found = flow.lyapunov_exponents(
            cell, params, inputs, num_exponents=k, burn_in=BURN_IN
        ).exponents
        return jnp.mean(found**2), found

    def epoch(state: tuple[Any, Any], key: jax.Array) -> tuple[tuple[Any, Any], jax.Array]:
        params, memory = state
        slope, found = jax.grad(loss, has_aux=True)(params, signal(key, config.num_steps))
        change, memory = adam.update(slope, memory)
        return (optax.apply_updates(params, change), memory), found

    keys = jax.random.split(k_inputs, config.epochs)
    (last, _), found = jax.jit(partial(jax.lax.scan, epoch))((first, adam.init(first)), keys)
    inputs = signal(k_look, config.num_steps)
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
    room = np.full((len(values), width), np.nan)
    room[:, : values.shape[1]] = values
    return room


def sums(config: Config) -> np.ndarray:
    """Σ λ_i of all exponents of one net, and the mean of log |det J_t| by its closed form."""
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


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """Every k and seed; dimensions count, seed, epoch, index."""
    import xarray

    def seeds(k: int) -> "xarray.Dataset":
        parts = [once(f"k={k}-{s}", partial(floss, config, k, s)) for s in range(config.num_seeds)]
        return xarray.concat(parts, dim="seed")

    found = xarray.concat([seeds(k) for k in config.num_exponents], dim="count")
    return found.assign_coords(count=list(config.num_exponents)).assign(
        sums=("way", sums(config)), units=((), config.units)
    )


def condition(dataset: "xarray.Dataset", k: int) -> np.ndarray:
    """log10 σ_1/σ_k of the long-term Jacobian, (when,): the median over seeds."""
    logs = dataset.log_singular.sel(count=k).transpose("when", "index", "seed").values
    return np.median(logs[:, 0] - logs[:, k - 1], axis=-1) / np.log(10)


def claims(dataset: "xarray.Dataset") -> list[Claim]:
    """Each claim about the numbers of exponents that were run, beside what was measured."""
    abstract = (
        "abstract (read through a second source): controls gradient norm and condition number"
    )
    found = [
        numbers(
            "flossing-sum",
            "sum of all exponents of a net as it is drawn",
            dataset.sums.values[1],
            dataset.sums.values[0],
            rtol=1e-6,
            source=OWN + "log |det J| + mean Σ log(1 - tanh²(x)), in NumPy",
            exact=True,
            digits=8,
        )
    ]
    for k, fall in ((16, 3), (75, 10)):
        if k in dataset["count"]:
            before, after = condition(dataset, k)
            found.append(
                statement(
                    f"flossing-kappa{k}",
                    f"flossing {k} exponents makes the long-term Jacobian well conditioned",
                    "the condition number falls",
                    f"from {10**before:.2g} to {10**after:.2g}",
                    source=abstract + "; the bound is our own",
                    condition=f"σ_1/σ_{k} of ∂x_T/∂x_0 falls by over 1e{fall}",
                    holds=before - after > fall,
                )
            )
    if 16 in dataset["count"]:
        ends = dataset.exponents.sel(count=16).isel(epoch=slice(-20, None)).mean("epoch")
        worst = np.nanmax(np.abs(ends.values))
        starts = np.nanmax(np.abs(dataset.exponents.sel(count=16).isel(epoch=0).values))
        found.append(
            statement(
                "flossing-exponents16",
                "flossing drives all of the first 16 exponents to zero",
                "exponents go to zero",
                f"largest |λ_i| from {starts:.2f} to {worst:.3f}",
                source="the figure of exponents against epoch; the bound is our own",
                condition="each |λ_i|, in the mean of the last 20 epochs, is below 0.15",
                holds=worst < 0.15,
            )
        )
    if 1 in dataset["count"]:
        first = dataset.log_singular.sel(count=1).isel(index=0).median("seed").values / np.log(10)
        found.append(
            statement(
                "flossing-norm1",
                "flossing one exponent keeps the gradient's norm",
                "gradients neither vanish nor explode",
                f"σ_1 of ∂x_T/∂x_0 from {10 ** first[0]:.2g} to {10 ** first[1]:.2g}",
                source=abstract + "; the bound is our own",
                condition="σ_1 is below 1e-3 before and from 0.01 to 100 after",
                holds=first[0] < -3 and abs(first[1]) < 2,
            )
        )
    return found


def figure(dataset: "xarray.Dataset") -> "Figure":
    """Exponents against the epoch, and the Jacobian's singular values before and after."""
    from matplotlib.figure import Figure

    counts = dataset["count"].values
    fig = Figure(figsize=(2.4 * len(counts) + 0.8, 4.6))
    tops, bottoms = fig.subplots(2, len(counts), squeeze=False, sharey="row")
    for top, bottom, k in zip(tops, bottoms, counts, strict=True):
        one = dataset.sel(count=k).isel(seed=0)
        drawn = np.unique(np.linspace(0, k - 1, min(k, 8)).astype(int))
        for number, index in enumerate(drawn):
            color = f"{0.75 * number / max(len(drawn) - 1, 1):.2f}"
            top.plot(one.epoch, one.exponents.isel(index=index), color=color, lw=0.8)
        top.axhline(0, color="#D55E00", lw=0.8, ls=":")
        top.set(title=f"k = {k}", xlabel="epoch")
        for when, color, marker in (("before", "#000000", "o"), ("after", "#0072B2", "s")):
            values = one.log_singular.sel(when=when).values[:k] / np.log(10)
            bottom.plot(np.arange(1, k + 1), values, color=color, marker=marker, ms=3, label=when)
        bottom.set(xlabel="index i", xlim=(0, k + 1))
        bottom.xaxis.get_major_locator().set_params(integer=True)
    tops[0].set_ylabel(r"exponents $\lambda_i$ (nats per step)")
    bottoms[0].set_ylabel(r"$\log_{10}\,\sigma_i$ of $\partial x_T/\partial x_0$")
    bottoms[-1].legend()
    return fig


def summary(dataset: "xarray.Dataset") -> str:
    """The table of verdicts."""
    return verdicts(claims(dataset))


EXPERIMENT = study.Experiment(
    name="papers/engelken2023",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    quick={"units": 8, "num_exponents": (1, 4), "num_steps": 25, "epochs": 5},
    full={"num_seeds": 5, "num_exponents": (1, 16, 32, 75)},
    doc=__doc__,
)

PAPER = Paper(
    citation="Engelken 2023, Gradient flossing: improving gradient descent through dynamic control "
    "of Jacobians, arXiv:2312.17306",
    experiment=EXPERIMENT,
    claims=claims,
    figures={"flossing": figure},
    traps=(
        "A plain product of 55 steps in float64 shows no condition number beyond 1e18, where its "
        "rounding is: the singular values have to be measured as logarithms.",
        "σ_1/σ_16 before flossing is 1e4 in one net and 4e5 in another; after it, it is 50 to 100: "
        "by how much it falls is up to the net. --full has five.",
        "The panels of the paper's figures were not read: the picture is laid out by its text.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
