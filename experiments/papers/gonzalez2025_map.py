"""How far a net can be seen ahead, and for how long, says how many iterations DEER needs.

The nets s_{t+1} = W tanh(s_t) + u_t, W ~ g N(0, 1)/√D without a diagonal, driven by weak sines, for
many gains g. All steps are found at once by Newton's method (DEER) from a guess of U(-1, 1), until
½ Σ_t ‖s_t - f(s_{t-1})‖² / T < 1e-10. The count of iterations over largest exponent λ and length T
is laid beside the theory, by which the problem is the worse conditioned the larger ::

    2 log Σ_{t<T} exp(λ t)

One run counts for all lengths, as the first states do not depend on the later ones. The paper has
50 gains, 20 seeds, and lengths to 10,000; here the default has 11, 3 and 500.

Source: Gonzalez et al. 2025, arXiv:2508.16817, Fig. 2.

    python experiments/papers/gonzalez2025_map.py

Takes about ten seconds on one core.
"""

from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from _claims import Claim, Paper, statement, verdicts
from _newton import deer, moves_by_scan
from jax.scipy.special import logsumexp

from gradflow import Cell, flow, study

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gradflow import Params


@dataclass(frozen=True)
class Config(study.Config):
    """The nets, and how long they run."""

    num_seeds: int = study.field(3, help="Seeds of the nets.", positive=True)
    units: int = study.field(100, help="Units of a net.", positive=True)
    gains: tuple[float, ...] = study.field(
        (0.5, 0.65, 0.8, 0.95, 1.1, 1.2, 1.3, 1.4, 1.6, 1.8, 2.0), help="Gains.", positive=True
    )
    num_steps: int = study.field(500, help="The largest length T.", positive=True)
    num_lengths: int = study.field(12, help="Lengths from 10 on, even in log T.", positive=True)


@cache
def net_cell(units: int) -> Cell:
    """s_{t+1} = W tanh(s_t) + u_t."""

    def step(params: "Params", s: jax.Array, u: jax.Array) -> tuple[jax.Array, jax.Array]:
        s = params["W_h"] @ jnp.tanh(s) + u
        return s, s

    return Cell(lambda key: {"W_h": jnp.eye(units)}, step, lambda: jnp.zeros(units))


def lengths_of(config: Config) -> np.ndarray:
    """The lengths of the heat map."""
    T = config.num_steps
    return np.unique(np.geomspace(min(10, T), T, config.num_lengths).round().astype(int))


def solve(config: Config, gain: float) -> "xarray.Dataset":
    """The nets of one gain: iterations by seed and length, exponents by seed."""
    import xarray

    D, T, lengths = config.units, config.num_steps, lengths_of(config)
    counts, exponents = [], []
    for seed in range(config.num_seeds):
        rng = np.random.default_rng([config.seed, seed])
        W = gain * rng.standard_normal((D, D)) / np.sqrt(D)
        np.fill_diagonal(W, 0)
        size, rate, phase = (rng.uniform(*e, D) for e in ((0, 0.2), (0.5, 3), (0, 2 * np.pi)))
        u = jnp.asarray(size * np.sin(rate * np.arange(T)[:, None] + phase))
        s_0, guess = (jnp.asarray(rng.uniform(-1, 1, shape)) for shape in (D, (T, D)))
        cell, params = net_cell(D), {"W_h": jnp.asarray(W)}
        ends = s_0, guess
        counts.append(deer(cell, moves_by_scan, params, u, ends, jnp.asarray(lengths))[0])
        found = flow.lyapunov_exponents(cell, params, u, num_exponents=1, carry=s_0)
        exponents.append(found.exponents[0])
    return xarray.Dataset(
        {
            "iterations": (("seed", "length"), np.stack(counts)),
            "exponent": ("seed", np.stack(exponents)),
        },
        coords={"length": lengths},
    )


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """All gains; dimensions gain, seed, length."""
    import xarray

    nets = [
        once(f"gain={gain:g}", partial(solve, config, gain))
        for gain in study.progress(config.gains, "gains")
    ]
    return xarray.concat(nets, dim="gain").assign_coords(gain=list(config.gains))


def theory(exponent: np.ndarray, length: int) -> np.ndarray:
    """The paper's -log of the least squared singular value: 2 log Σ_{t<T} exp(λ t)."""
    return 2 * np.asarray(logsumexp(np.asarray(exponent)[..., None] * np.arange(length), axis=-1))


def map_of(dataset: "xarray.Dataset") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Median exponents in rising order, and mean iterations and theory by (exponent, length)."""
    exponents = dataset.exponent.median("seed").values
    order = np.argsort(exponents)
    counts = dataset.iterations.mean("seed").transpose("gain", "length").values
    said = [theory(exponents[order], int(T)) for T in dataset.length.values]
    return exponents[order], counts[order], np.stack(said, axis=1)


def claims(dataset: "xarray.Dataset") -> list[Claim]:
    """Each claim beside what was measured."""
    from scipy.stats import spearmanr

    exponents, counts, said = map_of(dataset)
    lengths = dataset.length.values
    calm, wild = exponents < -0.2, exponents > 0.02
    grows = np.polyfit(np.log(lengths[lengths >= 30]), np.log(counts[:, lengths >= 30].T), 1)[0]
    rank = float(np.asarray(spearmanr(counts.ravel(), said.ravel()))[0])
    most = counts[calm].max(initial=0)
    return [
        statement(
            "heatmap-calm",
            "few iterations at any length where the exponent is negative",
            "few steps (a picture)",
            f"at most {most:.0f} up to T = {lengths[-1]}",
            source="Fig. 2, centre",
            condition="at most 15 iterations where the exponent is below -0.2, in the mean over "
            "seeds, at every length",
            holds=calm.any() and most <= 15,
            picture=True,
        ),
        statement(
            "heatmap-wild",
            "iterations in proportion to the length where it is positive",
            "about T steps (a picture)",
            f"as T to the power {between(grows[wild])}" if wild.any() else "no such net",
            source="Fig. 2, centre",
            condition="they grow as T to a power of 0.8 to 1.2 where the exponent is above 0.02, "
            "from T = 30 on",
            holds=wild.any() and (np.abs(grows[wild] - 1) <= 0.2).all(),
            picture=True,
        ),
        statement(
            "heatmap-theory",
            "the theory orders nets and lengths as the iterations do",
            "left and centre look alike (a picture)",
            f"rank correlation {rank:.3f}",
            source="Fig. 2, left and centre",
            condition="the rank correlation over the grid is above 0.9",
            holds=rank > 0.9,
            picture=True,
        ),
    ]


def between(values: "xarray.DataArray | np.ndarray") -> str:
    """The least and the greatest."""
    return f"{float(np.min(values)):.3g} to {float(np.max(values)):.3g}"


def figure(dataset: "xarray.Dataset") -> "Figure":
    """Fig. 2: theory, iterations, and iterations at the largest length."""
    from matplotlib.figure import Figure

    exponents, counts, said = map_of(dataset)
    lengths = dataset.length.values
    fig = Figure(figsize=(7.0, 2.6))
    axes = fig.subplots(1, 3)
    for ax, values, title in ((axes[0], said, "Theory"), (axes[1], counts, "Experiment")):
        _heat(fig, ax, exponents, lengths, values)
        ax.set(xlabel="largest exponent λ", title=title)
    axes[0].set_ylabel("length T")
    axes[1].tick_params(labelleft=False)
    x, y = dataset.exponent, dataset.iterations.isel(length=-1)
    axes[2].plot(x.values.ravel(), y.transpose(*x.dims).values.ravel(), "o", color="#0072B2")
    axes[2].axvline(0, color="0.3", lw=0.8, ls=":")
    axes[2].set(xlabel="largest exponent λ", ylabel="iterations", title=f"T = {lengths[-1]}")
    return fig


def _heat(
    fig: "Figure", ax: "Axes", exponents: np.ndarray, lengths: np.ndarray, values: np.ndarray
) -> None:
    mesh = ax.pcolormesh(exponents, lengths, values.T, shading="gouraud", cmap="cividis")
    fig.colorbar(mesh, ax=ax)
    ax.axvline(0, color="white", lw=1.0, ls=":")
    ax.grid(False)


def summary(dataset: "xarray.Dataset") -> str:
    """The table of verdicts."""
    return verdicts(claims(dataset))


EXPERIMENT = study.Experiment(
    name="papers/gonzalez2025_map",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    quick={
        "units": 16,
        "gains": (0.5, 1.2, 2.0),
        "num_steps": 60,
        "num_lengths": 4,
        "num_seeds": 1,
    },
    full={
        "gains": tuple(np.linspace(0.5, 2, 21).round(3).tolist()),
        "num_steps": 2000,
        "num_lengths": 24,
        "num_seeds": 5,
    },
    doc=__doc__,
)

PAPER = Paper(
    citation="Gonzalez et al. 2025, Predictability enables parallelization of nonlinear state "
    "space models, arXiv:2508.16817",
    experiment=EXPERIMENT,
    claims=claims,
    figures={"heatmap": figure},
    traps=(
        "The authors' count has one more iteration than moved a state: the residual is looked at "
        "before each. It is kept.",
        "What overflows on the way is put back to the guess, as the authors' solver offers and "
        "their script does not ask for.",
        "The axis of exponents is that of their medians over seeds, at the largest length.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
