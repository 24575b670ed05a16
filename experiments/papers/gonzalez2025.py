"""DEER evaluates an RNN in parallel over time in few iterations where no gradient explodes.

The network s_{t+1} = W tanh(s_t) + u_t has 100 units and W ~ g N(0, 1)/√100 without a diagonal, and
is driven by weak sines. As the gain g rises, its largest Lyapunov exponent passes zero. DEER, which
finds all steps at once by Newton's method ::

    s_t <- f(s_{t-1}^old) + J_t (s_{t-1} - s_{t-1}^old)
    until ½ Σ_t ‖s_t - f(s_{t-1})‖² / T < 1e-10

needs a few iterations where the exponent is negative, and about T iterations where it is positive.

Source: Gonzalez et al. 2025, arXiv:2508.16817, the figure of exponent against gain and Fig. 2.

    python experiments/papers/gonzalez2025.py

Takes about a minute on two cores.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from _driven import driven, sample
from _iterations import count_iterations
from _kit import curves, fields, rates
from _paper import Paper

from gradflow import flow, study
from gradflow.study import Claim, numbers, statement
from gradflow.study.figure import Figure
from gradflow.unroll.affine import linearised_scan

BURN_IN = 100


@dataclass(frozen=True)
class Config(study.Config):
    """The networks and the gains."""

    units: int = fields.positive(100, help="Units D.")
    num_steps: int = fields.num_steps(1000)
    num_gains: int = fields.positive(26, help="Number of gains g, evenly spaced from 0.5 to 2.")
    deer_gains: tuple[float, ...] = fields.positive(
        (0.5, 0.8, 1.0, 1.2, 1.4, 1.7, 2.0), help="Gains at which DEER runs."
    )
    deer_seeds: int = fields.positive(3, help="Seeds for which DEER runs.")


def sampled(config: Config, seed: int, num_steps: int) -> tuple[np.ndarray, ...]:
    """Samples W at gain 1, u of shape (T, D), and s_0."""
    matrix, u, s_0 = sample(np.random.default_rng([config.seed, seed]), config.units, num_steps)
    return matrix / np.sqrt(config.units), u, s_0


def exponent(W: jax.Array, u: jax.Array, s_0: jax.Array) -> jax.Array:
    """Computes the largest Lyapunov exponent by QR along the trajectory."""
    found = flow.lyapunov_exponents(
        driven(len(s_0)), {"W_h": W}, u, num_exponents=1, burn_in=BURN_IN, carry=s_0
    )
    return found.exponents[0]


def tangent_exponents(W: np.ndarray, u: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Computes the same in NumPy, as the mean growth of 3 random directions; (network,)."""
    v = np.random.default_rng(0).standard_normal((*s.shape, 3))
    total = np.zeros((len(s), 3))
    for t in range(u.shape[1]):
        v = W @ ((1 - np.tanh(s) ** 2)[..., None] * v)
        s = (W @ np.tanh(s)[..., None])[..., 0] + u[:, t]
        size = np.linalg.norm(v, axis=1)
        v = v / size[:, None]
        total += np.log(size) * (t >= BURN_IN)
    return total.mean(axis=1) / (u.shape[1] - BURN_IN)


def deer(W: jax.Array, u: jax.Array, s_0: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Counts the iterations of DEER from a guess of zeros, and measures the error of its states.

    In the chaotic range the count depends on how the linear system is rounded: solved for the moves
    of the states it is 163 at g = 1.4, T = 1000, and solved for the states themselves 155.
    """
    ends, lengths = (s_0, jnp.zeros_like(u)), jnp.array([len(u)])
    counts, error = count_iterations(
        driven(len(s_0)), linearised_scan, {"W_h": W}, u, ends, lengths
    )
    return counts[0], error


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Measures exponents by two routes, and DEER; dimensions gain, seed, deer_gain, deer_seed."""
    gains = np.linspace(0.5, 2, config.num_gains)
    networks = [sampled(config, s, config.num_steps + BURN_IN) for s in range(config.num_seeds)]
    W, u, s_0 = (np.stack(parts) for parts in zip(*networks, strict=True))

    def seeds(gain: jax.Array) -> jax.Array:
        return jax.vmap(exponent)(gain * jnp.asarray(W), jnp.asarray(u), jnp.asarray(s_0))

    by_qr = np.asarray(jax.jit(partial(jax.lax.map, seeds))(jnp.asarray(gains)))
    by_tangent = np.stack([tangent_exponents(gain * W, u, s_0) for gain in gains])
    parts = [
        once(f"deer gain={gain:g}", partial(_solve, config, gain))
        for gain in study.progress(config.deer_gains, "DEER")
    ]
    return xarray.merge([
        xarray.Dataset(
            {"exponent": (("gain", "seed"), by_qr), "tangent": (("gain", "seed"), by_tangent)},
            coords={"gain": gains},
            attrs={"num_steps": config.num_steps},
        ),
        xarray.concat(parts, dim="deer_gain"),
    ])  # fmt: skip


def _solve(config: Config, gain: float) -> xarray.Dataset:
    found = []
    for seed in range(config.deer_seeds):
        W, u, s_0 = sampled(config, seed, config.num_steps)
        at = gain * jnp.asarray(W), jnp.asarray(u), jnp.asarray(s_0)
        found.append([*map(float, deer(*at)), float(exponent(*at))])
    values = np.array(found).T[:, None]
    names = ("iterations", "state_error", "deer_exponent")
    return xarray.Dataset(
        {
            name: (("deer_gain", "deer_seed"), part)
            for name, part in zip(names, values, strict=True)
        },
        coords={"deer_gain": [gain]},
    )


def crossing(dataset: xarray.Dataset) -> float:
    """Finds the gain at which the median exponent passes zero, by linear interpolation."""
    return rates.crossing(dataset.gain.values, dataset.exponent.median("seed").values)


def claims(dataset: xarray.Dataset) -> list[Claim]:
    """The exponents, and the iterations of DEER."""
    return [*about_exponents(dataset), *about_iterations(dataset)]


def about_exponents(dataset: xarray.Dataset) -> list[Claim]:
    """The largest exponent against the gain."""
    median = dataset.exponent.median("seed")
    return [
        numbers(
            "lle-tangent",
            "QR and tangent vectors give the same median exponent (largest difference).",
            0,
            float(np.abs(median - dataset.tangent.median("seed")).max()),
            atol=0.01,
            kind="derived",
            source="the mean growth of 3 tangent vectors, in NumPy",
        ),
        numbers(
            "lle-linear",
            "Below g = 0.8 the median exponent is ln g (largest difference).",
            0,
            float(np.abs(median - np.log(dataset.gain))[dataset.gain < 0.8].max()),
            atol=0.1,
            kind="derived",
            source="the circular law: the network is nearly linear there",
        ),
        numbers(
            "lle-crossing",
            "The median exponent passes zero at a gain between 1.1 and 1.4.",
            1.25,
            crossing(dataset),
            atol=0.15,
            kind="regression",
            source="an earlier measurement of ours: the drive delays chaos beyond g = 1",
        ),
    ]


def about_iterations(dataset: xarray.Dataset) -> list[Claim]:
    """The iterations and the errors of DEER against the exponent."""
    T = dataset.attrs["num_steps"]
    medians = dataset.iterations.median("deer_seed").values
    negative = dataset.iterations.where(dataset.deer_exponent < -0.2)
    largest = dataset.iterations.sel(deer_gain=dataset.deer_gain.max()).values
    error = dataset.state_error.values
    predictable = error[medians <= 10].max(initial=0)
    return [
        statement(
            "fig2-calm",
            "DEER needs few iterations where the exponent is negative.",
            "few steps",
            {f"most iterations of {T}": float(negative.max())},
            source="Fig. 2 (read through a second source)",
            criterion="at most 10 iterations where the exponent is below -0.2",
            holds=bool(negative.notnull().any()) and negative.max() <= 10,
        ),
        statement(
            "fig2-wild",
            "DEER needs about T iterations where the exponent is positive.",
            "about T steps",
            {f"iterations of {T}": largest},
            source="Fig. 2 (read through a second source)",
            criterion="more than T/2 iterations at the largest gain, for every seed",
            holds=(largest > T / 2).all(),
        ),
        statement(
            "fig2-turn",
            "The iterations of DEER rise with the exponent.",
            "turning near 0",
            {"median iterations": medians},
            source="Fig. 2, right",
            picture=True,
            criterion="their median over seeds never falls as the gain rises",
            holds=(np.diff(medians) >= 0).all(),
        ),
        statement(
            "fig2-states",
            "In the predictable range a small residual implies accurate states.",
            "near-zero residual with wrong states in the chaotic range",
            {
                "largest state error where at most 10 iterations are needed": predictable,
                "largest state error at the largest gain": error[-1].max(),
            },
            source="a reading of the paper through a second source",
            picture=True,
            criterion="states within 1e-3 of those of a scan wherever 10 iterations are enough",
            holds=(medians <= 10).any() and predictable < 1e-3,
        ),
    ]


def figure_lle(dataset: xarray.Dataset) -> Figure:
    """The exponent against the gain: median, minimum and maximum over seeds."""
    fig = study.figure.empty()
    ax = fig.subplots()
    blue = curves.SHADES[1]
    data = dataset.exponent
    ax.fill_between(dataset.gain, data.min("seed"), data.max("seed"), color=blue, alpha=0.2, lw=0)
    ax.plot(dataset.gain, data.median("seed"), color=blue, label="median, minimum to maximum")
    ax.plot(dataset.gain, np.log(dataset.gain), ":", color="0.5", label="ln g")
    ax.axhline(0, color="0.3", lw=0.8)
    ax.set(xlabel="gain g", ylabel="largest exponent (nats per step)", xlim=(0.5, 2))
    ax.set_title("Predictable and chaotic gains")
    ax.legend()
    return fig


def figure_2(dataset: xarray.Dataset) -> Figure:
    """Iterations of DEER against the exponent, coloured by the error of its states."""
    fig = study.figure.empty()
    ax = fig.subplots()
    worst = np.log10(np.maximum(dataset.state_error.values, 1e-16))
    points = ax.scatter(dataset.deer_exponent, dataset.iterations, c=worst, s=14, cmap="viridis_r")
    fig.colorbar(points, label=r"$\log_{10}$ state error")
    ax.axvline(0, color="0.3", lw=0.8)
    ax.axhline(dataset.attrs["num_steps"], color="0.3", lw=0.8, ls=":")
    ax.set(yscale="log", xlabel="largest exponent (nats per step)", ylabel="iterations of DEER")
    ax.set_title("Iterations against predictability (dotted: T)")
    return fig


EXPERIMENT = Paper(
    name="papers/gonzalez2025",
    config=Config,
    run=run,
    figure=figure_2,
    claims=claims,
    quick={
        "units": 40,
        "num_steps": 200,
        "num_gains": 6,
        "num_seeds": 2,
        "deer_seeds": 1,
        "deer_gains": (0.5, 2.0),
    },
    doc=__doc__,
    citation="Gonzalez et al. 2025, Predictability enables parallelization of nonlinear state "
    "space models, arXiv:2508.16817",
    figures={"lle": figure_lle, "fig2": figure_2},
    traps=(
        "The figure of exponent against gain is Fig. 4 in the authors' plotting script and Fig. 5 "
        "in the fourth version of the paper, according to a second source.",
        "In the chaotic range the residual can be small while the states are wrong, so the error "
        "of the states is shown with the iterations.",
        "The sines of the drive are functions of the step number here. How the authors scale their "
        "time was not read.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
