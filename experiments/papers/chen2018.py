"""In a wide tanh RNN the mean square of a gradient is multiplied by χ at every step.

The tanh RNN is what the paper compares its subject, the minimalRNN, with; the latter is not
measured here. With pre-activations of variance q*, and weights N(0, σ_w²/n) sampled anew at every
step, as in the theory::

    q* = σ_w² E tanh(√q* z)² + σ_b²    χ = σ_w² E tanh'(√q* z)²

On the critical line χ = 1 gradients neither vanish nor explode. The line that the library finds
(`gradflow.initializers.critical`) is compared with an independent quadrature, and χ with the
simulation of a wide network.

Source: Chen, Pennington, Schoenholz 2018, arXiv:1806.05394.

    python experiments/papers/chen2018.py

Takes about 15 seconds on two cores.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from _kit import curves, fields, runs
from _paper import Paper
from _quadrature import moments

from gradflow import study
from gradflow.initializers.meanfield import critical_gain
from gradflow.study import Claim, derived, numbers, statement
from gradflow.study.figure import Figure

BIASES = (0.0, 0.1, 0.2, 0.5, 1.0)
POINTS = ((0.0, 0.9), (0.0, 1.5), (0.1, 1.0), (0.2, 1.3), (0.5, 1.5), (1.0, 2.0))
"""(σ_b, σ_w) at which a wide network is simulated: below the critical line, on it and above."""

ON_THE_LINE = 0.01
"""The distance of χ from 1 within which a point is on the line: its simulation may fall or grow."""


@dataclass(frozen=True)
class Config(study.Config):
    """The size of the simulated network."""

    hidden_size: int = fields.hidden_size(1000)
    num_steps: int = fields.positive(45, help="Time steps, of which the last third is measured.")
    num_seeds: int = fields.num_seeds(2)


def fixed_point(bias_std: float, gain: float) -> float:
    """Computes q* by iterating its equation from above, where the iterates fall monotonically."""
    q = 100.0
    for _ in range(4000):
        q = gain**2 * moments(q)[0] + bias_std**2
    return q


def chi(bias_std: float, gain: float) -> float:
    """Computes χ at the fixed point."""
    return gain**2 * moments(fixed_point(bias_std, gain))[1]


def critical_by_hermite(bias_std: float) -> float:
    """Computes the σ_w at which χ = 1, by bisection over q.

    At a given q both equations hold if σ_w² = 1/E tanh'².
    """
    low, high = 0.0, 10.0
    for _ in range(80):
        q = (low + high) / 2
        square, slope = moments(q)
        low, high = (q, high) if q - square / slope - bias_std**2 < 0 else (low, q)
    return moments(high)[1] ** -0.5


def simulate(key: jax.Array, at: jax.Array, width: int, num_steps: int) -> tuple[jax.Array, ...]:
    """Computes the mean square singular value of one step, and the growth rate of |gradient|²."""

    def step(state: tuple, key: jax.Array) -> tuple[tuple, tuple]:
        a, v = state
        k_w, k_b = jax.random.split(key)
        W = at[1] * jax.random.normal(k_w, (width, width)) / jnp.sqrt(width)
        slope = 1 - jnp.tanh(a) ** 2
        one_step = jnp.sum((W * slope) ** 2) / width
        v = W @ (slope * v)
        size = jnp.linalg.norm(v)
        a = W @ jnp.tanh(a) + at[0] * jax.random.normal(k_b, (width,))
        return (a, v / size), (one_step, 2 * jnp.log(size))

    k_a, k_v, k_steps = jax.random.split(key, 3)
    v = jax.random.normal(k_v, (width,))
    first = jax.random.normal(k_a, (width,)), v / jnp.linalg.norm(v)
    _, (one_step, growth) = jax.lax.scan(step, first, jax.random.split(k_steps, num_steps))
    settled = num_steps * 2 // 3
    return jnp.mean(one_step[settled:]), jnp.mean(growth[settled:])


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Computes the critical line by two quadratures, and χ by quadrature and by simulation."""
    del once  # it takes seconds
    keys, n, T = runs.keys(config), config.hidden_size, config.num_steps
    measure = jax.jit(lambda at: jax.lax.map(lambda key: simulate(key, at, n, T), keys))
    found = [measure(jnp.asarray(at)) for at in study.progress(POINTS, "wide networks")]
    biases = np.linspace(0, 1, 21)
    return xarray.Dataset(
        {
            "gain": (("bias",), [critical_gain("tanh", bias_std=b) for b in BIASES]),
            "hermite": (("bias",), [critical_by_hermite(b) for b in BIASES]),
            "line": (("line_bias",), [critical_by_hermite(b) for b in biases]),
            "chi": (("point",), [chi(*at) for at in POINTS]),
            "one_step": (("point", "seed"), np.stack([one for one, _ in found])),
            "growth": (("point", "seed"), np.stack([growth for _, growth in found])),
        },
        coords={"bias": list(BIASES), "line_bias": biases},
    )


def claims(dataset: xarray.Dataset) -> list[Claim]:
    """The critical line, and what χ predicts for wide networks."""
    return [*about_line(dataset), *about_growth(dataset)]


def about_line(dataset: xarray.Dataset) -> list[Claim]:
    """The library's critical line against closed form and quadrature."""
    return [
        derived(
            "line-zero",
            "Without biases the critical σ_w is 1.",
            1.0,
            dataset.gain.values[0],
            atol=1e-6,
            source="at q = 0 tanh is linear, so that χ = σ_w²",
        ),
        derived(
            "line-rest",
            "The library's critical σ_w at σ_b = 0.1, 0.2, 0.5, 1 solves χ = 1.",
            dataset.hermite.values[1:],
            dataset.gain.values[1:],
            atol=1e-3,
            source="χ = 1 by Gauss-Hermite quadrature",
        ),
    ]


def about_growth(dataset: xarray.Dataset) -> list[Claim]:
    """χ in wide networks, and its two sides."""
    chi = dataset.chi.values
    one_step, growth = (dataset[name].mean("seed").values for name in ("one_step", "growth"))
    off = np.abs(chi - 1) > ON_THE_LINE
    above = np.array([gain > critical_by_hermite(bias) for bias, gain in POINTS])[off]
    sides = np.exp(growth)[off]
    return [
        numbers(
            "line-onestep",
            "The mean square singular value of one step of a wide network is χ, at six points.",
            chi,
            one_step,
            rtol=0.03,
            kind="derived",
            source="χ by quadrature",
        ),
        numbers(
            "line-growth",
            "Over many steps the mean square of a gradient changes by a factor χ per step.",
            chi,
            np.exp(growth),
            rtol=0.05,
            kind="derived",
            source="χ by quadrature; that gradients scale as χ^t is the paper's theory",
        ),
        statement(
            "line-sides",
            "In a wide tanh RNN gradients vanish below the critical line and explode above it.",
            "χ = 1 separates the two regimes",
            {
                "factors per step of the mean square of a gradient, below the line": sides[~above],
                "above": sides[above],
            },
            source="abstract and second sources; of the tanh RNN, not of the minimalRNN",
            criterion="in simulation the mean square falls at every point below the line, and "
            f"grows at every point above it (a point with χ within {ON_THE_LINE:g} of 1 is on it)",
            holds=((sides > 1) == above).all(),
        ),
    ]


def figure(dataset: xarray.Dataset) -> Figure:
    """The critical line, and the simulated factor per step against χ."""
    fig = study.figure.empty(7.0, 2.8)
    left, right = fig.subplots(1, 2)
    blue, orange, green = curves.SHADES[1:4]
    left.plot(dataset.line, dataset.line_bias**2, color=blue)
    left.set(xlabel=r"$\sigma_w$", ylabel=r"$\sigma_b^2$", title="Critical line of tanh, χ = 1")
    for (bias, gain), chi in zip(POINTS, dataset.chi.values, strict=True):
        left.plot(gain, bias**2, "o", color=orange if chi > 1 else green)
    chi = dataset.chi.values
    ends = np.array([chi.min() * 0.9, chi.max() * 1.1])
    right.plot(ends, ends, color="0.7", lw=0.8)
    right.plot(
        chi,
        dataset.one_step.mean("seed"),
        "o",
        color=blue,
        label="singular values of one step",
    )
    right.plot(
        chi,
        np.exp(dataset.growth.mean("seed")),
        "x",
        color=orange,
        label="gradient over many steps",
    )
    right.set(xlabel="χ by quadrature", ylabel="factor per step", title="Wide networks")
    right.legend()
    return fig


EXPERIMENT = Paper(
    name="papers/chen2018",
    config=Config,
    run=run,
    figure=figure,
    claims=claims,
    quick={"hidden_size": 200, "num_steps": 30, "num_seeds": 1},
    doc=__doc__,
    citation="Chen, Pennington, Schoenholz 2018, Dynamical isometry and a mean field theory of "
    "RNNs, arXiv:1806.05394",
    figures={"line": figure},
    traps=(
        "The theory samples new weights at every step. With the same weights at every step the "
        "gradient of a linear network at σ_w = 1 grows polynomially, because W is not normal.",
        "The paper's maps of trainability need days of training and are not reproduced here.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
