"""Deep ReLU networks cannot be isometries; hard-tanh ones can, with orthogonal weights alone.

In a wide network at criticality a fraction p of the units is in the linear part of φ, so that the
mean square singular value of the Jacobian of L layers is (σ_w² p)^L = 1. The second moment of the
squared singular values is then ::

    m_2/m_1² = (L + p)/p                 Gaussian weights
    m_2/m_1² = 1 + L (1 - p)/p           orthogonal weights

p is 1/2 for ReLU, at σ_w = √2 alone, and erf(1/√(2q)) for hard tanh at the variance q of the
pre-activations. Moments are measured from `flow.log_singular_values`.

Source: Pennington, Schoenholz, Ganguli 2017, arXiv:1711.04735, of which the abstract was read; the
formulas for Gaussian weights as quoted in the guide of Depth First Learning, section 5, problems 3
and 4.

    python experiments/papers/pennington2017.py

Took six minutes on two cores beside much other work.
"""

import math
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from _kit import fields, runs
from _layers import ACTIVATIONS, weights
from _paper import Paper

from gradflow import Cell, Params, flow, study
from gradflow.study import Claim, numbers, statement
from gradflow.study.claims import Kind
from gradflow.study.figure import Figure

VARIANCES = {"small q": 0.05, "large q": 0.6}
"""q of the hard-tanh networks: almost all units linear, and fewer."""

DEPTHS = (1, 2, 4, 8)
"""The depths at which moments are compared."""


@dataclass(frozen=True)
class Config(study.Config):
    """The sizes of the networks."""

    hidden_size: int = fields.hidden_size(128)
    num_layers: int = fields.positive(16, help="Depth of the networks.")
    num_seeds: int = fields.num_seeds(6)


def fraction(activation: str, q: float) -> float:
    """Computes p, the fraction of units in the linear part of φ."""
    known = {"linear": 1.0, "relu": 0.5}
    return known.get(activation) or math.erf(1 / math.sqrt(2 * q))


def hard_tanh_square(q: float) -> float:
    """Computes E φ(√q z)² of hard tanh by the trapezoidal rule."""
    z = np.linspace(-12, 12, 200001)
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    return float(np.trapezoid(np.clip(math.sqrt(q) * z, -1, 1) ** 2 * density, z))


NETS = {
    "linear": ("linear", 1.0),
    "ReLU": ("relu", 1.0),
    "hard tanh, small q": ("hard_tanh", VARIANCES["small q"]),
    "hard tanh, large q": ("hard_tanh", VARIANCES["large q"]),
}
"""Activation, and the variance q of the pre-activations, at criticality σ_w² p = 1."""

LAWS = ("gaussian", "orthogonal")


def biased(width: int, activation: str) -> Cell:
    """Makes the cell h_l = W_l φ(h_{l-1}) + b_l with the input x_l = (W_l, b_l) as one row."""
    phi = ACTIVATIONS[activation]

    def step(params: Params, h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        del params
        h = x[:-width].reshape(width, width) @ phi(h) + x[-width:]
        return h, h

    return Cell(lambda key: {}, step, lambda: jnp.zeros(width))


def singular_values(config: Config, activation: str, q: float) -> np.ndarray:
    """Measures log σ_i of both kinds of weights at every lag, (law, run, lag, index).

    The biases make q the fixed point of the variance of the pre-activations.
    """
    n, depth = config.hidden_size, config.num_layers
    p = fraction(activation, q)
    square = {"linear": q, "relu": q / 2}.get(activation) or hard_tanh_square(q)
    bias_std = math.sqrt(max(0.0, q - square / p))
    cell = biased(n, activation)

    def one(inputs: jax.Array, h: jax.Array) -> jax.Array:
        return flow.log_singular_values(cell, {}, inputs, carry=h)

    def given(key: jax.Array, law: str) -> tuple[jax.Array, jax.Array]:
        k_w, k_b, k_h = jax.random.split(key, 3)
        W = weights(k_w, law, depth, n, 1 / math.sqrt(p))
        b = bias_std * jax.random.normal(k_b, (depth, n))
        return jnp.concatenate([W, b], axis=1), math.sqrt(q) * jax.random.normal(k_h, (n,))

    made = [jax.vmap(partial(given, law=law))(runs.keys(config)) for law in LAWS]
    found = runs.measure(one, *(jnp.concatenate(parts) for parts in zip(*made, strict=True)))
    return found.reshape(len(LAWS), config.num_seeds, depth + 1, n)


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Measures the singular values of all networks at every depth."""
    del once  # it takes a minute
    found = [singular_values(config, *NETS[name]) for name in study.progress(NETS, "networks")]
    return xarray.Dataset(
        {"log_value": (("net", "law", "run", "lag", "index"), np.stack(found), {"units": "nats"})},
        coords={"net": list(NETS), "law": list(LAWS)},
    )


def moments(dataset: xarray.Dataset) -> tuple[xarray.DataArray, xarray.DataArray]:
    """Computes m_1 and m_2/m_1² of σ², (net, law, lag): means over the runs."""
    squares = np.exp(2 * dataset.log_value)
    first = squares.mean("index")
    return first.mean("run"), ((squares**2).mean("index") / first**2).mean("run")


def predicted(name: str, law: str, depth: int) -> float:
    """Computes m_2/m_1²."""
    p = fraction(*NETS[name])
    return (depth + p) / p if law == "gaussian" else 1 + depth * (1 - p) / p


def claims(dataset: xarray.Dataset) -> list[Claim]:
    """The moments, and which networks can be isometries."""
    first, second = moments(dataset)
    depths = [depth for depth in DEPTHS if depth < dataset.sizes["lag"]]
    last = dataset.log_value.isel(lag=-1)
    near = (abs(last) < np.log(1.1)).mean(("run", "index"))
    small = near.sel(net="hard tanh, small q")
    variance = second - 1
    relu = variance.sel(net="ReLU")
    guide = "as quoted in the guide of Depth First Learning, section 5"

    def spread(id: str, name: str, law: str, source: str, kind: Kind) -> Claim:
        shown = ", ".join(map(str, depths))
        return numbers(
            f"moments-{id}",
            f"m_2/m_1² of σ² in {law} {name} networks at the depths L = {shown}.",
            [predicted(name, law, depth) for depth in depths],
            second.sel(net=name, law=law)[depths].values,
            rtol=0.15,
            source=source,
            kind=kind,
        )

    formula = f"m_2 = m_1² (L + p)/p, {guide}, problem 4 d"
    transform = "the S-transforms of D² multiply; that of orthogonal weights is 1"
    return [
        numbers(
            "moments-mean",
            "The mean square singular value is (σ_w² p)^L, which is 1 at criticality: L = 8, "
            "linear, ReLU and two hard-tanh networks, Gaussian and orthogonal.",
            1.0,
            first[:, :, depths[-1]].values,
            atol=0.2,
            source=f"m_1 = (σ_w² p)^L, {guide}, problems 3 c and 4 d",
        ),
        spread("linear", "linear", "gaussian", formula, "published"),
        spread("relu", "ReLU", "gaussian", formula, "published"),
        spread("hardtanh", "hard tanh, large q", "gaussian", formula, "published"),
        spread("relu_orthogonal", "ReLU", "orthogonal", transform, "derived"),
        spread("hardtanh_orthogonal", "hard tanh, large q", "orthogonal", transform, "derived"),
        statement(
            "moments-incapable",
            "ReLU networks are incapable of dynamical isometry.",
            "we find that ReLU networks are incapable of dynamical isometry",
            {
                "variance of σ²/m_1, deepest, Gaussian and orthogonal": relu[:, -1],
                "fraction of σ within 10 % of 1": near.sel(net="ReLU"),
            },
            source="abstract",
            criterion="with both kinds of weights the variance is larger at the largest depth than "
            "at 1 and above 1, and under 30 % of σ are within 10 % of 1",
            holds=bool((relu[:, -1] > np.maximum(relu[:, 1], 1)).all())
            and bool((near.sel(net="ReLU") < 0.3).all()),
        ),
        statement(
            "moments-sigmoidal",
            "Sigmoidal networks can achieve isometry, but only with orthogonal weights.",
            "sigmoidal networks can achieve isometry, but only with orthogonal weight "
            "initialization",
            {"fraction of σ within 10 % of 1, hard tanh, small q, Gaussian and orthogonal": small},
            source="abstract",
            criterion="over 95 % with orthogonal weights, under 30 % with Gaussian ones",
            holds=float(small.sel(law="orthogonal")) > 0.95
            and float(small.sel(law="gaussian")) < 0.3,
            exact=True,
        ),
    ]


def figure(dataset: xarray.Dataset) -> Figure:
    """The spread of σ² against depth with both kinds of weights, and its prediction."""
    fig = study.figure.empty(6.4, 2.8)
    _, second = moments(dataset)
    panels = fig.subplots(1, 2, sharey=True)
    lag = np.arange(1, dataset.sizes["lag"])
    for ax, law in zip(panels, LAWS, strict=True):
        for index, name in enumerate(NETS):
            color = study.figure.series_style(index)["color"]
            look = {"mfc": "none", "ms": 6} if name == "linear" else {"ms": 3}
            values = second.sel(net=name, law=law)[1:]
            ax.plot(lag, values, "o", color=color, label=name, **look)
            ax.plot(lag, [predicted(name, law, int(depth)) for depth in lag], color=color, lw=1)
        ax.set(xlabel="depth L", title=f"{law.capitalize()} weights", yscale="log")
        ax.set_xticks(np.arange(4, dataset.sizes["lag"], 4))
    panels[0].set_ylabel(r"$m_2/m_1^2$ of $\sigma^2$")
    panels[1].legend(loc="upper left")
    return fig


EXPERIMENT = Paper(
    name="papers/pennington2017",
    config=Config,
    run=run,
    figure=figure,
    claims=claims,
    quick={"hidden_size": 16, "num_layers": 4, "num_seeds": 2},
    doc=__doc__,
    citation="Pennington, Schoenholz, Ganguli 2017, Resurrecting the sigmoid in deep learning "
    "through dynamical isometry: theory and practice, arXiv:1711.04735",
    figures={"moments": figure},
    traps=(
        "The formula for orthogonal weights is derived here; the paper's own was not read.",
        "hard tanh stands for sigmoidal functions, as in the paper's theory.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
