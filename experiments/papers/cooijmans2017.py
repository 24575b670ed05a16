"""The mean derivative of tanh falls with the standard deviation of its input: why γ starts small.

Batch-normalised pre-activations are N(0, s²), where the gain γ sets s. In the backward pass tanh
multiplies a gradient by its derivative, whose mean over x ~ N(0, s²) is ::

    E tanh'(x) = 1 - E tanh(x)²

The mean is measured on a cell of the library: ∂h_t/∂h_{t-1} of one unit whose input is N(0, s²), by
automatic differentiation on a grid of inputs.

Source: Cooijmans et al. 2017, arXiv:1603.09025, Fig. 1 (b).

    python experiments/papers/cooijmans2017.py

Takes about 3 seconds on two cores.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from _kit import curves, fields
from _paper import Paper
from _quadrature import moments

from gradflow import study
from gradflow.cells import rnn
from gradflow.study import Claim, derived, statement
from gradflow.study.figure import Figure

MARKS = (0.1, 0.25, 0.5, 0.75, 1.0)
"""The standard deviations s at which the mean is compared with the quadrature."""

QUANTILES = (1.15034938, 0.31863936)
"""|z| with the probabilities 3/4 and 1/4 of a smaller one, z ~ N(0, 1)."""


@dataclass(frozen=True)
class Config(study.Config):
    """The grid of inputs."""

    points: int = fields.positive(20001, help="Inputs for each standard deviation.")


def slopes(deviation: jax.Array, z: jax.Array, weights: jax.Array) -> jax.Array:
    """Computes mean and quartiles of the step Jacobian of one unit, W_h = 1, over inputs s z."""
    cell = rnn(1, 1)
    params = {"W_h": jnp.eye(1), "W_x": jnp.eye(1), "b": jnp.zeros(1)}

    def jacobian(x: jax.Array) -> jax.Array:
        return jax.grad(lambda h: cell.step(params, h[None], x[None])[1][0])(jnp.zeros(()))

    found = jax.vmap(jacobian)(deviation * z)
    quartiles = 1 - jnp.tanh(deviation * jnp.array(QUANTILES)) ** 2
    return jnp.concatenate([(found @ weights)[None], quartiles])


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Measures the derivative at every standard deviation from 0 to 1; dimension s."""
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
    """Computes 1 - E tanh(x)² by Gauss-Hermite quadrature."""
    return 1 - moments(s**2)[0]


def claims(dataset: xarray.Dataset) -> list[Claim]:
    """The values of the curve, and its shape."""
    mean = dataset["mean"].values
    return [
        derived(
            "fig1b-values",
            "E tanh'(x) = 1 - E tanh(x)² at s = 0.1, 0.25, 0.5, 0.75, 1.",
            [reference(s) for s in MARKS],
            dataset["mean"].sel(s=list(MARKS), method="nearest").values,
            atol=1e-3,
            source="1 - E tanh² by Gauss-Hermite quadrature",
        ),
        statement(
            "fig1b-falls",
            "The mean derivative of tanh falls from 1 as its input's standard deviation grows.",
            "falls from 1",
            {"mean at s = 0 and 1": [mean[0], mean[-1]]},
            source="Fig. 1 (b)",
            criterion="it is 1 at s = 0 and falls with every larger s",
            exact=True,
            holds=abs(mean[0] - 1) < 1e-9 and (np.diff(mean) < 0).all(),
        ),
    ]


def figure(dataset: xarray.Dataset) -> Figure:
    """The derivative of tanh against the standard deviation of its input."""
    fig = study.figure.empty()
    ax = fig.subplots()
    blue = curves.SHADES[1]
    ax.fill_between(dataset.s, dataset.low, dataset.high, color=blue, alpha=0.2, lw=0)
    ax.plot(dataset.s, dataset["mean"], color=blue, label="mean, 25–75 %")
    ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="standard deviation of the input")
    ax.set(ylabel="derivative", title="Derivative of tanh, input N(0, s²)")
    ax.legend(loc="lower left")
    return fig


EXPERIMENT = Paper(
    name="papers/cooijmans2017",
    config=Config,
    run=run,
    figure=figure,
    claims=claims,
    quick={"points": 2001},
    doc=__doc__,
    citation="Cooijmans, Ballas, Laurent, Gulcehre, Courville 2017, Recurrent batch normalization, "
    "arXiv:1603.09025",
    figures={"fig1b": figure},
    traps=("Fig. 1 (a), the gradient against time, is reproduced by cooijmans2017_images.",),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
