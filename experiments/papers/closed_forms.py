"""Jacobians of random networks vanish or explode where closed forms predict it.

*Gain*: log10 of ‖∂h_t/∂h_0‖_F/√n for RNNs of 100 units with W_h = g N(0, 1)/√n, driven by noise
0.1 N(0, 1). Theory puts the critical gain near 1 for tanh and near √2 for ReLU, which halves the
mean square of the Jacobian. *GRU*: at h = 0, without input and bias, the step Jacobian is
I/2 + W/4, with W the recurrent matrix of n, and stability is lost where a real leading eigenvalue
of W exceeds 2. *Products*: the Lyapunov spectrum of products of independent Gaussian N x N matrices
of variance 1/N is λ_i = (ψ((N - i + 1)/2) + log(2/N))/2.

Source: Kanai, Fujiwara, Iwamura 2017 for the GRU (as a sufficient condition on the spectral norm);
Newman 1986 for the products. No paper printed these numbers.

    python experiments/papers/closed_forms.py

Takes about half a minute on two cores.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from _kit import fields, runs
from _paper import Paper
from jax.scipy.special import digamma

from gradflow import Cell, Params, flow, study
from gradflow.cells import gru, rnn
from gradflow.study import Claim, derived, numbers, statement
from gradflow.study.figure import Figure

GAINS = (0.5, 0.9, 1.0, 1.1, 1.5)
LAGS = (10, 50, 100)
NETS = {"tanh": "tanh", "relu": "relu", "linear": "identity"}
RADII = (1.9, 2.0, 2.1, 3.0)
GRU_STEPS = 200


@dataclass(frozen=True)
class Config(study.Config):
    """The sizes of the networks."""

    hidden_size: int = fields.hidden_size(100)
    num_seeds: int = fields.num_seeds(10)
    size: int = fields.positive(64, help="Size N of the Gaussian matrices.")
    num_steps: int = fields.positive(2000, help="Matrices of the product.")


def norms(config: Config, activation: str, law: str, gains: tuple[float, ...]) -> np.ndarray:
    """Measures log10 ‖∂h_t/∂h_0‖_F/√n of RNNs with W_h from a law times the gain.

    Returns:
      The norms at the lags, (gain, seed, lag).
    """
    n = config.hidden_size
    cell = rnn(n, n, activation=activation, recurrent_init=law)

    def one(key: jax.Array, gain: jax.Array) -> jax.Array:
        k_params, k_noise = jax.random.split(key)
        initial = cell.init(k_params)
        params = {**initial, "W_h": gain * initial["W_h"], "W_x": 0.1 * jnp.eye(n)}
        noise = jax.random.normal(k_noise, (max(LAGS), n))
        found = [flow.log_norms(cell, params, noise[:t], norm="frobenius")[-1] for t in LAGS]
        return (jnp.stack(found) - jnp.log(n) / 2) / jnp.log(10)

    keys = jnp.tile(runs.keys(config), len(gains))
    found = runs.measure(one, keys, jnp.repeat(jnp.asarray(gains), config.num_seeds))
    return found.reshape(len(gains), config.num_seeds, len(LAGS))


def gru_at_rest(radius: float) -> tuple[float, float]:
    """Measures a GRU with a symmetric W of a radius at h = 0.

    Returns:
      The factor per step of ‖∂h_T/∂h_0‖ over 200 steps, and the distance of the step Jacobian from
      I/2 + W/4.
    """
    n = 20
    cell = gru(1, n)
    half = np.random.default_rng(0).standard_normal((n, n))
    values, Q = np.linalg.eigh(half + half.T)
    W = (Q * values) @ Q.T * radius / values.max()
    initial = cell.init(jax.random.key(0))
    params = {**initial, "n": {**initial["n"], "W_h": jnp.asarray(W)}}
    inputs = jnp.zeros((GRU_STEPS, 1))
    grown = flow.log_norms(cell, params, inputs)[-1] / GRU_STEPS
    J = jax.jacfwd(lambda h: cell.step(params, h, inputs[0])[0])(jnp.zeros(n))
    return float(jnp.exp(grown)), float(np.abs(J - (np.eye(n) / 2 + W / 4)).max())


def products(config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Computes the exponents of a product of Gaussian matrices, by QR and by the formula."""
    N = config.size

    def step(params: Params, h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = jnp.reshape(x, (N, N)) @ h
        return h, h

    cell = Cell(lambda key: {}, step, lambda: jnp.zeros(N))
    key = jax.random.key(config.seed)
    matrices = jax.random.normal(key, (config.num_steps, N * N)) / jnp.sqrt(N)
    measure = jax.jit(lambda x: flow.lyapunov_exponents(cell, {}, x).exponents)
    formula = (digamma((N - jnp.arange(N)) / 2) + jnp.log(2 / N)) / 2
    return np.asarray(measure(matrices)), np.asarray(formula)


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Measures the norms at every gain, the GRUs at rest, and the spectrum of the product."""
    del once  # it takes seconds
    over_gains = [norms(config, phi, "normal(gain=1.0)", GAINS) for phi in NETS.values()]
    rests = np.array([gru_at_rest(radius) for radius in RADII])
    measured, formula = products(config)
    return xarray.Dataset(
        {
            "log_norm": (("net", "gain", "seed", "lag"), np.array(over_gains)),
            "growth": (("radius",), rests[:, 0]),
            "distance": (("radius",), rests[:, 1]),
            "exponent": (("way", "index"), np.stack([measured, formula])),
        },
        coords={"net": list(NETS), "gain": list(GAINS), "lag": list(LAGS),
                "radius": list(RADII), "way": ["measured", "formula"]},
    )  # fmt: skip


def claims(dataset: xarray.Dataset) -> list[Claim]:
    """The critical gains, the GRU at rest, and the spectrum of Gaussian products."""
    return [about_gains(dataset), *about_gru(dataset), about_products(dataset)]


def about_gains(dataset: xarray.Dataset) -> Claim:
    """The gains between which the Jacobian changes from vanishing to exploding."""
    end = dataset.log_norm.mean("seed").sel(lag=100)
    tanh, relu = (np.sign(end.sel(net=net).values) for net in ("tanh", "relu"))
    return statement(
        "gain-critical",
        "The critical gain is near 1 for tanh and near √2 for ReLU.",
        "tanh near 1, ReLU near √2",
        {
            f"log10 norm of {net} at lag 100 for g = 0.9 and 1.5": [
                float(end.sel(net=net, gain=g)) for g in (0.9, 1.5)
            ]
            for net in ("tanh", "relu")
        },
        kind="derived",
        source="a ReLU halves the mean square of the Jacobian",
        criterion="the norm of tanh decreases at g = 0.9 and grows at 1.5; that of ReLU decreases "
        "at 1.1 and grows at 1.5",
        holds=tanh[1] < 0 < tanh[4] and relu[3] < 0 < relu[4],
    )


def about_gru(dataset: xarray.Dataset) -> list[Claim]:
    """The GRU at rest."""
    return [
        derived(
            "gru-jacobian",
            "The GRU's step Jacobian at h = 0 is I/2 + W/4 (measured: the largest distance).",
            0,
            dataset.distance.values.max(),
            atol=1e-12,
            source="z = r = 1/2",
        ),
        derived(
            "gru-critical",
            "‖∂h_200/∂h_0‖ of a GRU at rest grows by a factor 1/2 + radius/4 per step, here for a "
            "symmetric W of radius 1.9, 2, 2.1, 3.",
            0.5 + dataset.radius.values / 4,
            dataset.growth.values,
            rtol=1e-9,
            source="1/2 + radius/4, which passes 1 at 2, the bound of Kanai 2017",
        ),
    ]


def about_products(dataset: xarray.Dataset) -> Claim:
    """The spectrum of Gaussian products."""
    measured, formula = dataset.exponent.values
    return numbers(
        "products-spectrum",
        f"The {len(formula)} exponents of a product of Gaussian matrices are those of the formula "
        "(measured: the largest distance).",
        0,
        np.abs(measured - formula).max(),
        atol=0.03,
        kind="derived",
        source="(ψ((N - i + 1)/2) + log(2/N))/2; 0.017 off in 2000 steps elsewhere",
    )


def figure_gain(dataset: xarray.Dataset) -> Figure:
    """The norm against the lag for each gain, a panel for each activation."""
    fig = study.figure.empty(7.6, 2.6)
    axes = fig.subplots(1, len(NETS))
    shades = ("#0072B2", "#56B4E9", "#000000", "#E69F00", "#D55E00")
    for ax, net in zip(axes, NETS, strict=True):
        for gain, color, marker in zip(GAINS, shades, "osD^v", strict=True):
            data = dataset.log_norm.sel(net=net, gain=gain).mean("seed")
            ax.plot([0, *LAGS], [0, *data], color=color, marker=marker, ms=4, label=f"g = {gain:g}")
        ax.axhline(0, color="0.5", lw=0.8, ls=":")
        ax.set(title={"relu": "ReLU"}.get(net, net), xlabel="lag t")
    axes[0].set_ylabel(r"$\log_{10}\,\|\partial h_t/\partial h_0\|_F/\sqrt{n}$")
    axes[-1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return fig


def figure_gru(dataset: xarray.Dataset) -> Figure:
    """The factor per step of a GRU's Jacobian at rest against the radius of W."""
    fig = study.figure.empty(3.6, 2.8)
    ax = fig.subplots()
    radius = np.linspace(1.8, 3.1, 50)
    ax.plot(radius, 0.5 + radius / 4, color="0.6", label="1/2 + radius/4")
    ax.plot(dataset.radius, dataset.growth, "o", color="#0072B2", label="measured")
    ax.axhline(1, color="0.5", lw=0.8, ls=":")
    ax.set(
        title="A GRU at rest",
        xlabel="radius of W (symmetric)",
        ylabel=r"factor of $\|\partial h_t/\partial h_0\|$ per step",
    )
    ax.legend()
    return fig


def figure_products(dataset: xarray.Dataset) -> Figure:
    """The exponents of a product of Gaussian matrices, measured and by the formula."""
    fig = study.figure.empty(3.6, 2.8)
    ax = fig.subplots()
    measured, formula = dataset.exponent.values
    index = np.arange(1, len(formula) + 1)
    ax.plot(index, formula, color="0.5", label="formula")
    ax.plot(index, measured, "o", ms=3, color="#0072B2", label="measured")
    ax.set(title="Product of Gaussian matrices", xlabel="index i")
    ax.set_ylabel(r"$\lambda_i$ (nats per step)")
    ax.legend()
    return fig


EXPERIMENT = Paper(
    name="papers/closed_forms",
    config=Config,
    run=run,
    figure=figure_gain,
    claims=claims,
    quick={"hidden_size": 10, "num_seeds": 2, "size": 6, "num_steps": 60},
    doc=__doc__,
    citation="Closed forms for random networks: Kanai, Fujiwara, Iwamura 2017; Newman 1986",
    figures={"gain": figure_gain, "gru": figure_gru, "products": figure_products},
    traps=(
        "The same W_h at every step is not normal: a linear RNN at g = 1 grows by a power of t.",
        "The spectral radius of a Gaussian W of 100 units differs by some percent between seeds, "
        "and log10 of the norm at lag 100 by about 2.",
        "A random W whose leading eigenvalues are a complex pair loses stability a little before "
        "their real part is 2.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
