"""In a wide net a gradient's mean square is multiplied by one number χ at every step.

With pre-activations of variance q*, weights N(0, σ_w²/n) drawn anew at every step, and tanh::

    q* = σ_w² E tanh(√q* z)² + σ_b²    χ = σ_w² E tanh'(√q* z)²

Gradients live long on the critical line χ = 1, which is found by quadrature in the library
(`gradflow.initializers.critical`), here by another quadrature, and checked by simulating a wide
net.

Source: Chen, Pennington, Schoenholz 2018, arXiv:1806.05394.

    python experiments/papers/chen2018.py

Takes about 15 seconds on two cores.
"""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from _claims import OWN, Claim, Paper, numbers, statement, verdicts

from gradflow import study
from gradflow.initializers.meanfield import critical_gain

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

BIASES = (0.0, 0.1, 0.2, 0.5, 1.0)
POINTS = ((0.0, 0.9), (0.0, 1.5), (0.1, 1.0), (0.2, 1.3), (0.5, 1.5), (1.0, 2.0))
"""(σ_b, σ_w) at which a wide net is simulated: below the line, on it and above."""


@dataclass(frozen=True)
class Config(study.Config):
    """How wide and how deep the simulated net is."""

    width: int = study.field(1000, help="Units n.", positive=True)
    num_steps: int = study.field(45, help="Steps, the first two thirds to settle.", positive=True)
    num_seeds: int = study.field(2, help="Independent nets.", positive=True)


@cache
def hermite_rule() -> tuple[np.ndarray, np.ndarray]:
    """The 200 points and weights of Gauss and Hermite's rule for z ~ N(0, 1)."""
    z, weights = np.polynomial.hermite_e.hermegauss(200)
    return z, weights / np.sqrt(2 * np.pi)


def moments(q: float) -> tuple[float, float]:
    """E tanh(√q z)² and E tanh'(√q z)²."""
    z, weights = hermite_rule()
    square = np.tanh(np.sqrt(q) * z) ** 2
    return float(weights @ square), float(weights @ (1 - square) ** 2)


def fixed_point(bias_std: float, gain: float) -> float:
    """q*, by going round: from above, where it falls."""
    q = 100.0
    for _ in range(4000):
        q = gain**2 * moments(q)[0] + bias_std**2
    return q


def chi(bias_std: float, gain: float) -> float:
    """χ at the fixed point."""
    return gain**2 * moments(fixed_point(bias_std, gain))[1]


def critical_by_hermite(bias_std: float) -> float:
    """σ_w with χ = 1: at a given q both lines hold if σ_w² = 1/E tanh'², so it is solved for q."""
    low, high = 0.0, 10.0
    for _ in range(80):
        q = (low + high) / 2
        square, slope = moments(q)
        low, high = (q, high) if q - square / slope - bias_std**2 < 0 else (low, q)
    return moments(high)[1] ** -0.5


def simulate(key: jax.Array, at: jax.Array, width: int, num_steps: int) -> tuple[jax.Array, ...]:
    """Mean square singular value of one step, and mean growth of a gradient's square."""

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


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """The critical line by two quadratures, and χ by quadrature and in wide nets."""
    import xarray

    del once  # it takes seconds
    keys = jax.random.split(jax.random.key(config.seed), config.num_seeds)
    measure = jax.jit(
        lambda at: jax.lax.map(lambda k: simulate(k, at, config.width, config.num_steps), keys)
    )
    found = [measure(jnp.asarray(at)) for at in study.progress(POINTS, "wide nets")]
    biases = np.linspace(0, 1, 21)
    return xarray.Dataset(
        {
            "gain": (("bias",), [critical_gain("tanh", bias_std=b) for b in BIASES]),
            "hermite": (("bias",), [critical_by_hermite(b) for b in BIASES]),
            "line": (("line_bias",), [critical_by_hermite(b) for b in biases]),
            "chi": (("point",), [chi(*at) for at in POINTS]),
            "one_step": (("point", "seed"), np.array([np.asarray(one) for one, _ in found])),
            "growth": (("point", "seed"), np.array([np.asarray(more) for _, more in found])),
        },
        coords={"bias": list(BIASES), "line_bias": biases},
    )


def claims(dataset: "xarray.Dataset") -> list[Claim]:
    """Each claim beside what was measured."""
    chi = dataset.chi.values
    one_step, growth = (dataset[name].mean("seed").values for name in ("one_step", "growth"))
    above = np.array([at[1] for at in POINTS]) > np.array(
        [critical_by_hermite(at[0]) for at in POINTS]
    )
    return [
        numbers(
            "line-zero",
            "critical σ_w without biases",
            1.0,
            dataset.gain.values[0],
            atol=1e-6,
            source=OWN + "at q = 0 tanh is linear: χ = σ_w²",
            exact=True,
        ),
        numbers(
            "line-rest",
            "critical σ_w at σ_b = 0.1, 0.2, 0.5, 1",
            dataset.hermite.values[1:],
            dataset.gain.values[1:],
            atol=1e-3,
            source=OWN + "Gauss-Hermite quadrature",
            exact=True,
        ),
        numbers(
            "line-onestep",
            "mean square singular value of one step of a wide net, at six points",
            chi,
            one_step,
            rtol=0.03,
            source=OWN + "χ by quadrature",
        ),
        numbers(
            "line-growth",
            "factor of a gradient's mean square per step, over many steps",
            chi,
            np.exp(growth),
            rtol=0.05,
            source=OWN + "χ by quadrature; that gradients scale as χ^t is the paper's theory",
        ),
        statement(
            "line-sides",
            "gradients vanish below the critical line and explode above it",
            "χ = 1 divides them",
            "χ " + " / ".join(f"{x:.3g}" for x in chi),
            exact=True,
            source="abstract and second sources",
            condition="χ is above 1 exactly at the points whose σ_w is above the line",
            holds=((chi > 1) == above).all(),
        ),
    ]


def figure(dataset: "xarray.Dataset") -> "Figure":
    """The critical line, and χ measured against χ computed."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(7.0, 2.8))
    left, right = fig.subplots(1, 2)
    left.plot(dataset.line, dataset.line_bias**2, color="#0072B2")
    left.set(xlabel=r"$\sigma_w$", ylabel=r"$\sigma_b^2$", title="Critical line of tanh, χ = 1")
    for (bias, gain), chi in zip(POINTS, dataset.chi.values, strict=True):
        left.plot(gain, bias**2, "o", color="#D55E00" if chi > 1 else "#009E73")
    chi = dataset.chi.values
    ends = np.array([chi.min() * 0.9, chi.max() * 1.1])
    right.plot(ends, ends, color="0.7", lw=0.8)
    right.plot(chi, dataset.one_step.mean("seed"), "o", color="#0072B2", label="one step")
    right.plot(chi, np.exp(dataset.growth.mean("seed")), "x", color="#D55E00", label="many steps")
    right.set(xlabel="χ by quadrature", ylabel="in a wide net", title="Growth of a mean square")
    right.legend()
    return fig


def summary(dataset: "xarray.Dataset") -> str:
    """The table of verdicts."""
    return verdicts(claims(dataset))


EXPERIMENT = study.Experiment(
    name="papers/chen2018",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    quick={"width": 200, "num_steps": 30, "num_seeds": 1},
    doc=__doc__,
)

PAPER = Paper(
    citation="Chen, Pennington, Schoenholz 2018, Dynamical isometry and a mean field theory of "
    "RNNs, arXiv:1806.05394",
    experiment=EXPERIMENT,
    claims=claims,
    figures={"line": figure},
    traps=(
        "The theory draws new weights at every step; with the same weights a linear net at σ_w = 1 "
        "grows like a polynomial, because it is not normal.",
        "The paper's maps of trainability need days of training and are not reproduced here.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
