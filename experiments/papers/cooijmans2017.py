"""The slope that tanh passes back falls as its input's deviation grows: why γ starts small.

Batch-normalised pre-activations are N(0, s²) with s set by the gain γ; on the way back tanh
multiplies a gradient by its derivative, whose mean over x ~ N(0, s²) is ::

    E tanh'(x) = 1 - E tanh(x)²

Measured here through the library's cells: the mean of ∂h_t/∂h_{t-1} of one-unit nets whose input is
N(0, s²), by automatic differentiation over a grid of quantiles.

Source: Cooijmans et al. 2017, arXiv:1603.09025, Fig. 1 (b).

    python experiments/papers/cooijmans2017.py

Takes about 3 seconds on two cores.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from _claims import OWN, Claim, Paper, numbers, statement, verdicts

from gradflow import study
from gradflow.cells import rnn

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

MARKS = (0.1, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Config(study.Config):
    """How finely the inputs are spread."""

    points: int = study.field(20001, help="Inputs of each deviation.", positive=True)


def slopes(deviation: jax.Array, z: jax.Array, weights: jax.Array) -> jax.Array:
    """The mean step Jacobian of one unit with W_h = 1, over inputs s z, and its quantiles."""
    cell = rnn(1, 1)
    params = {"W_h": jnp.eye(1), "W_x": jnp.eye(1), "b": jnp.zeros(1)}

    def jacobian(x: jax.Array) -> jax.Array:
        return jax.grad(lambda h: cell.step(params, h[None], x[None])[1][0])(jnp.zeros(()))

    found = jax.vmap(jacobian)(deviation * z)
    quartiles = 1 - jnp.tanh(deviation * jnp.array([1.15034938, 0.31863936])) ** 2
    return jnp.concatenate([(found @ weights)[None], quartiles])


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """The mean derivative at every deviation from 0 to 1."""
    import xarray

    del once  # it takes a second
    z = np.linspace(-10, 10, config.points)
    density = np.exp(-(z**2) / 2)
    weights = jnp.asarray(density / density.sum())
    s = np.linspace(0, 1, 101)
    found = jax.jit(lambda s: jax.lax.map(lambda one: slopes(one, jnp.asarray(z), weights), s))(s)
    mean, low, high = np.asarray(found).T
    return xarray.Dataset(
        {"mean": (("s",), mean), "low": (("s",), low), "high": (("s",), high)}, coords={"s": s}
    )


def reference(s: float) -> float:
    """1 - E tanh(x)² by Gauss and Hermite's rule."""
    z, weights = np.polynomial.hermite_e.hermegauss(200)
    return float(1 - weights @ np.tanh(s * z) ** 2 / np.sqrt(2 * np.pi))


def claims(dataset: "xarray.Dataset") -> list[Claim]:
    """Each claim beside what was measured."""
    mean = dataset["mean"].values
    return [
        numbers(
            "fig1b-values",
            "E tanh'(x) at s = 0.1, 0.25, 0.5, 0.75, 1",
            [reference(s) for s in MARKS],
            dataset["mean"].sel(s=list(MARKS), method="nearest").values,
            atol=1e-3,
            source=OWN + "1 - E tanh² by Gauss-Hermite quadrature",
            exact=True,
        ),
        statement(
            "fig1b-falls",
            "the expected derivative falls from 1 as the input's deviation grows",
            "falls from 1",
            f"{mean[0]:.3g} at s = 0 to {mean[-1]:.3g} at s = 1",
            source="Fig. 1 (b)",
            condition="it starts at 1 and falls at every s",
            exact=True,
            holds=abs(mean[0] - 1) < 1e-9 and (np.diff(mean) < 0).all(),
        ),
    ]


def figure(dataset: "xarray.Dataset") -> "Figure":
    """The derivative of tanh against the deviation of its input."""
    from matplotlib.figure import Figure

    fig = Figure()
    ax = fig.subplots()
    ax.fill_between(dataset.s, dataset.low, dataset.high, color="#0072B2", alpha=0.2, lw=0)
    ax.plot(dataset.s, dataset["mean"], color="#0072B2", label="mean; 25 to 75 %")
    ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="standard deviation of the input")
    ax.set(ylabel="derivative", title="Derivative passed back by tanh")
    ax.legend(loc="lower left")
    return fig


def summary(dataset: "xarray.Dataset") -> str:
    """The table of verdicts."""
    return verdicts(claims(dataset))


EXPERIMENT = study.Experiment(
    name="papers/cooijmans2017",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    quick={"points": 2001},
    doc=__doc__,
)

PAPER = Paper(
    citation="Cooijmans, Ballas, Laurent, Gulcehre, Courville 2017, Recurrent batch normalization, "
    "arXiv:1603.09025",
    experiment=EXPERIMENT,
    claims=claims,
    figures={"fig1b": figure},
    traps=("Fig. 1 (a), the gradient against time, needs a batch-normalised net on MNIST.",),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
