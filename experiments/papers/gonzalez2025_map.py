"""Largest Lyapunov exponent and length determine how many iterations DEER needs.

The networks s_{t+1} = W tanh(s_t) + u_t, W ~ g N(0, 1)/√D without a diagonal, are driven by weak
sines, for many gains g. Newton's method (DEER) finds all steps at once from a guess of U(-1, 1),
until ½ Σ_t ‖s_t - f(s_{t-1})‖² / T < 1e-10. The number of iterations, by largest exponent λ and
length T, is compared with the theory, by which the condition of the problem gets worse with ::

    2 log Σ_{t<T} exp(λ t)

One run counts the iterations for all lengths, because the first states do not depend on the later
ones. The paper has 50 gains, 20 seeds, and lengths to 10,000; here they are 11, 3 and 2,000.

Source: Gonzalez et al. 2025, arXiv:2508.16817, Fig. 2.

    python experiments/papers/gonzalez2025_map.py

Takes about three minutes on one core.
"""

from dataclasses import dataclass
from functools import partial

import jax.numpy as jnp
import numpy as np
import xarray
from _driven import driven, sample
from _iterations import count_iterations
from _kit import curves, fields
from _paper import Paper
from jax.scipy.special import logsumexp

from gradflow import flow, study
from gradflow.study import Claim, statement
from gradflow.study.figure import Axes, Figure
from gradflow.unroll.affine import linearised_scan

FITTED_FROM = 100
"""The smallest length of the fit: a shorter one is mostly the time in which errors grow."""


@dataclass(frozen=True)
class Config(study.Config):
    """The networks, and how long they run."""

    num_seeds: int = fields.num_seeds(3)
    units: int = fields.positive(100, help="Units D.")
    gains: tuple[float, ...] = fields.positive(
        (0.5, 0.65, 0.8, 0.95, 1.1, 1.2, 1.3, 1.4, 1.6, 1.8, 2.0), help="Gains g."
    )
    num_steps: int = fields.positive(2000, help="Largest length T.")
    num_lengths: int = fields.positive(
        16, help="Number of lengths from 10 to T, evenly spaced in log T."
    )


def lengths_of(config: Config) -> np.ndarray:
    """The lengths of the heat map, in ascending order."""
    T = config.num_steps
    return np.unique(np.geomspace(min(10, T), T, config.num_lengths).round().astype(int))


def solve(config: Config, gain: float) -> xarray.Dataset:
    """Measures the networks of one gain: iterations by seed and length, exponents by seed."""
    D, T, lengths = config.units, config.num_steps, lengths_of(config)
    counts, exponents = [], []
    for seed in range(config.num_seeds):
        rng = np.random.default_rng([config.seed, seed])
        matrix, u, s_0 = sample(rng, D, T)
        ends = jnp.asarray(s_0), jnp.asarray(rng.uniform(-1, 1, (T, D)))
        cell, params = driven(D), {"W_h": jnp.asarray(gain * matrix / np.sqrt(D))}
        at = params, jnp.asarray(u), ends, jnp.asarray(lengths)
        counts.append(count_iterations(cell, linearised_scan, *at)[0])
        found = flow.lyapunov_exponents(cell, *at[:2], num_exponents=1, carry=ends[0])
        exponents.append(found.exponents[0])
    return xarray.Dataset(
        {
            "iterations": (("seed", "length"), np.stack(counts)),
            "exponent": ("seed", np.stack(exponents)),
        },
        coords={"length": lengths},
    )


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Measures all gains; dimensions gain, seed, length."""
    parts = [
        once(f"gain={gain:g}", partial(solve, config, gain))
        for gain in study.progress(config.gains, "gains")
    ]
    return xarray.concat(parts, dim="gain").assign_coords(gain=list(config.gains))


def theory(exponent: np.ndarray, length: int) -> np.ndarray:
    """Computes -log of the least squared singular value by the paper: 2 log Σ_{t<T} exp(λ t)."""
    return 2 * np.asarray(logsumexp(np.asarray(exponent)[..., None] * np.arange(length), axis=-1))


def map_of(dataset: xarray.Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Computes exponents in ascending order, and iterations and theory by (exponent, length)."""
    exponents = dataset.exponent.median("seed").values
    order = np.argsort(exponents)
    counts = dataset.iterations.mean("seed").transpose("gain", "length").values
    predicted = [theory(exponents[order], int(T)) for T in dataset.length.values]
    return exponents[order], counts[order], np.stack(predicted, axis=1)


def claims(dataset: xarray.Dataset) -> list[Claim]:
    """The iterations on both sides of zero exponent, and the theory."""
    from scipy.stats import spearmanr

    exponents, counts, predicted = map_of(dataset)
    lengths = dataset.length.values
    negative = exponents < -0.2
    most = counts[negative].max(initial=0)
    wild, long = exponents > 0.02, lengths >= min(FITTED_FROM, lengths[-1])
    powers, shares = growth(lengths, counts)[wild], (counts / lengths)[np.ix_(wild, long)]
    rank = float(np.asarray(spearmanr(counts.ravel(), predicted.ravel()))[0])
    return [
        statement(
            "heatmap-calm",
            "Where the exponent is negative DEER needs few iterations at every length.",
            "few steps (a picture)",
            {f"most iterations up to T = {lengths[-1]}": most},
            source="Fig. 2, centre",
            criterion="at most 15 iterations where the exponent is below -0.2, in the mean over "
            "seeds, at every length",
            holds=negative.any() and most <= 15,
            picture=True,
        ),
        statement(
            "heatmap-wild",
            "Where the exponent is positive the iterations grow in proportion to the length.",
            "about T steps (a picture)",
            {
                "least and largest power of T": ends(powers),
                f"iterations over T at T = {lengths[long][0]}": ends(shares[:, 0]),
                f"iterations over T at T = {lengths[-1]}": ends(shares[:, -1]),
            },
            source="Fig. 2, centre",
            criterion="they grow as T to a power of 0.8 to 1.2 (bounds of our own) where the "
            f"exponent is above 0.02, from T = {FITTED_FROM} on",
            holds=powers.size and (np.abs(powers - 1) <= 0.2).all(),
            picture=True,
        ),
        statement(
            "heatmap-theory",
            "The theory orders networks and lengths as the iterations do.",
            "the left and centre panels agree (a picture)",
            {"rank correlation": rank},
            source="Fig. 2, left and centre",
            criterion="the rank correlation over all networks and lengths is above 0.9",
            holds=rank > 0.9,
            picture=True,
        ),
    ]


def ends(values: np.ndarray) -> list[float]:
    """The least and the largest value; NaN of none."""
    return [float(values.min()), float(values.max())] if values.size else [np.nan]


def growth(lengths: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Fits the power of T with which the iterations grow at long lengths, for each exponent."""
    long = lengths >= FITTED_FROM
    if long.sum() < 2:
        return np.full(len(counts), np.nan)
    return np.polyfit(np.log(lengths[long]), np.log(counts[:, long].T), 1)[0]


def figure(dataset: xarray.Dataset) -> Figure:
    """Fig. 2: theory, iterations, and iterations at the largest length."""
    exponents, counts, predicted = map_of(dataset)
    lengths = dataset.length.values
    fig = study.figure.empty(7.0, 2.6)
    axes = fig.subplots(1, 3)
    blue = curves.SHADES[1]
    panels = (
        (axes[0], predicted, "linear", r"Theory, $2\,\log\,\Sigma_t\,e^{\lambda t}$"),
        (axes[1], counts, "log", "Iterations"),
    )
    for ax, values, scale, title in panels:
        _heat(fig, ax, exponents, lengths, values, scale)
        ax.set(xlabel="largest exponent λ", yscale="log", title=title)
    axes[0].set_ylabel("length T")
    axes[1].tick_params(labelleft=False)
    x, y = dataset.exponent, dataset.iterations.isel(length=-1)
    axes[2].plot(x.values.ravel(), y.transpose(*x.dims).values.ravel(), "o", color=blue)
    axes[2].axvline(0, color="0.3", lw=0.8, ls=":")
    axes[2].set(xlabel="largest exponent λ", ylabel="iterations", title=f"T = {lengths[-1]}")
    return fig


def _heat(
    fig: Figure,
    ax: Axes,
    exponents: np.ndarray,
    lengths: np.ndarray,
    values: np.ndarray,
    scale: str,
) -> None:
    mesh = ax.pcolormesh(
        exponents, lengths, values.T, shading="gouraud", cmap="cividis", norm=scale
    )
    fig.colorbar(mesh, ax=ax)
    ax.axvline(0, color="white", lw=1.0, ls=":")
    ax.grid(False)


EXPERIMENT = Paper(
    name="papers/gonzalez2025_map",
    config=Config,
    run=run,
    figure=figure,
    claims=claims,
    quick={
        "units": 16,
        "gains": (0.5, 1.2, 2.0),
        "num_steps": 60,
        "num_lengths": 4,
        "num_seeds": 1,
    },
    full={
        "gains": tuple(np.linspace(0.5, 2, 21).round(3).tolist()),
        "num_lengths": 24,
        "num_seeds": 5,
    },
    doc=__doc__,
    citation="Gonzalez et al. 2025, Predictability enables parallelization of nonlinear state "
    "space models, arXiv:2508.16817",
    figures={"heatmap": figure},
    traps=(
        "As in the authors' code, the count is one more than the iterations that changed a state, "
        "because the residual is evaluated before each iteration.",
        "States that overflow are reset to the guess. The authors' solver has this option, but "
        "their script does not use it.",
        "The axis of exponents shows medians over seeds, at the largest length.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
