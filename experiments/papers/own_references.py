"""Jacobians of random nets vanish below a critical gain and explode above it: our own references.

No paper printed these numbers; they stand where one would want a table. *Gain*: log10 of
‖∂h_t/∂h_0‖_F/√n for nets of 100 units with W_h = g N(0, 1)/√n, driven by noise 0.1 N(0, 1), tanh,
ReLU and linear. *GRU*: at h = 0, without input and bias, the step Jacobian is I/2 + W/4 with W the
recurrent matrix of n, and stability is lost where a real leading eigenvalue passes 2. *Products*:
the Lyapunov spectrum of products of independent Gaussian N x N matrices of variance 1/N,
λ_i = (ψ((N - i + 1)/2) + log(2/N))/2.

Source: our own (the gains, NumPy); Kanai, Fujiwara, Iwamura 2017 for the GRU (as a sufficient
condition on the spectral norm); Newman 1986 for the products.

    python experiments/papers/own_references.py

Takes about half a minute on two cores.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from _paper import Paper
from jax.scipy.special import digamma

from gradflow import Cell, flow, study
from gradflow.cells import gru, rnn
from gradflow.devices import map_runs
from gradflow.study import Claim, numbers, statement

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

    from gradflow import Params

GAINS = (0.5, 0.9, 1.0, 1.1, 1.5)
LAGS = (10, 50, 100)
NETS = {"tanh": "tanh", "relu": "relu", "linear": "identity"}
TABLE = {
    "tanh": [(-3.06, -14.3, -27.7), (-0.57, -2.07, -3.36), (-0.17, -0.62, -0.63),
             (0.15, -0.01, -0.04), (0.94, 1.73, 3.08)],
    "relu": [(-4.5, -22.8, -45.7), (-2.0, -9.8, -19.7), (-1.5, -7.6, -15.1),
             (-1.1, -5.5, -10.9), (0.18, 2.03, 4.12)],
    "linear": [(-3.0, -14.0, -27.1), (-0.45, -1.21, -1.58), (0.01, 1.08, 2.99),
               (0.42, 3.15, 7.13), (1.77, 9.89, 20.6)],
}  # fmt: skip
"""log10 of the norm at lags 10, 50 and 100, for each gain."""

SPECIAL = {
    "identity": ("relu", "identity", (-0.35, -0.52, -0.58)),
    "orthogonal": ("tanh", "orthogonal", (-0.18, -1.29, -2.66)),
}
RADII = (1.9, 2.0, 2.1, 3.0)
GRU_STEPS = 200


@dataclass(frozen=True)
class Config(study.Config):
    """The sizes of the nets."""

    hidden_size: int = study.field(100, help="Units of the nets of many gains.", positive=True)
    num_seeds: int = study.field(10, help="Nets for each gain.", positive=True)
    size: int = study.field(64, help="N of the Gaussian products.", positive=True)
    num_steps: int = study.field(2000, help="Matrices of the product.", positive=True)


def norms(config: Config, activation: str, law: str, gains: tuple[float, ...]) -> np.ndarray:
    """log10 ‖∂h_t/∂h_0‖_F/√n at the lags, (gain, seed, lag), of W_h by a law times the gain."""
    n = config.hidden_size
    cell = rnn(n, n, activation=activation, recurrent_init=law)

    def one(key: jax.Array, gain: jax.Array) -> jax.Array:
        k_params, k_noise = jax.random.split(key)
        drawn = cell.init(k_params)
        params = {**drawn, "W_h": gain * drawn["W_h"], "W_x": 0.1 * jnp.eye(n)}
        noise = jax.random.normal(k_noise, (max(LAGS), n))
        found = [flow.log_norms(cell, params, noise[:t], norm="frobenius")[-1] for t in LAGS]
        return (jnp.stack(found) - jnp.log(n) / 2) / jnp.log(10)

    keys = jax.random.split(jax.random.key(config.seed), config.num_seeds)
    runs = jnp.tile(keys, len(gains)), jnp.repeat(jnp.asarray(gains), config.num_seeds)
    found = np.asarray(jax.jit(map_runs(one))(*runs))
    return found.reshape(len(gains), config.num_seeds, len(LAGS))


def gru_at_rest(radius: float) -> tuple[float, float]:
    """Of a GRU with a symmetric W of that radius at h = 0: the rate of growth, and J's distance.

    The rate is that of ‖∂h_T/∂h_0‖ over 200 steps; the distance that of one step's Jacobian from
    I/2 + W/4.
    """
    n = 20
    cell = gru(1, n)
    half = np.random.default_rng(0).standard_normal((n, n))
    values, Q = np.linalg.eigh(half + half.T)
    W = (Q * values) @ Q.T * radius / values.max()
    drawn = cell.init(jax.random.key(0))
    params = {**drawn, "n": {**drawn["n"], "W_h": jnp.asarray(W)}}
    inputs = jnp.zeros((GRU_STEPS, 1))
    grown = flow.log_norms(cell, params, inputs)[-1] / GRU_STEPS
    J = jax.jacfwd(lambda h: cell.step(params, h, inputs[0])[0])(jnp.zeros(n))
    return float(jnp.exp(grown)), float(np.abs(J - (np.eye(n) / 2 + W / 4)).max())


def products(config: Config) -> tuple[np.ndarray, np.ndarray]:
    """The exponents of a product of Gaussian matrices, measured and by the formula."""
    N = config.size

    def step(params: "Params", h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = jnp.reshape(x, (N, N)) @ h
        return h, h

    cell = Cell(lambda key: {}, step, lambda: jnp.zeros(N))
    key = jax.random.key(config.seed)
    matrices = jax.random.normal(key, (config.num_steps, N * N)) / jnp.sqrt(N)
    measure = jax.jit(lambda x: flow.lyapunov_exponents(cell, {}, x).exponents)
    formula = (digamma((N - jnp.arange(N)) / 2) + jnp.log(2 / N)) / 2
    return np.asarray(measure(matrices)), np.asarray(formula)


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """The norms at every gain, the GRUs at rest, and the product's spectrum."""
    import xarray

    del once  # it takes seconds
    over_gains = [norms(config, phi, "normal(gain=1.0)", GAINS) for phi in NETS.values()]
    special = [norms(config, phi, law, (1.0,))[0] for phi, law, _ in SPECIAL.values()]
    rests = np.array([gru_at_rest(radius) for radius in RADII])
    measured, formula = products(config)
    return xarray.Dataset(
        {
            "log_norm": (("net", "gain", "seed", "lag"), np.array(over_gains)),
            "special": (("law", "seed", "lag"), np.array(special)),
            "growth": (("radius",), rests[:, 0]),
            "distance": (("radius",), rests[:, 1]),
            "exponent": (("way", "index"), np.stack([measured, formula])),
        },
        coords={"net": list(NETS), "gain": list(GAINS), "lag": list(LAGS),
                "law": list(SPECIAL), "radius": list(RADII), "way": ["measured", "formula"]},
    )  # fmt: skip


def claims(dataset: "xarray.Dataset") -> list[Claim]:
    """Each reference beside what was measured."""
    return [*about_gains(dataset), *about_gru(dataset), about_products(dataset)]


def about_gains(dataset: "xarray.Dataset") -> list[Claim]:
    """The table of norms by gain, and where each net is critical."""
    mean, spread = dataset.log_norm.mean("seed"), dataset.log_norm.std("seed", ddof=1)
    error = spread * np.sqrt(1 / 5 + 1 / dataset.sizes["seed"])  # of two samples' difference
    row = {"kind": "regression", "rtol": 0.15, "atol": 0.3, "digits": 3}
    source = "NumPy, 5 seeds, means of log10; 100 units"
    found = [
        numbers(
            f"gain-{net}",
            f"log10 ‖∂h_t/∂h_0‖_F/√n at t = 10, 50, 100 for g = 0.5, 0.9, 1, 1.1, 1.5, {net}",
            np.array(TABLE[net]),
            mean.sel(net=net).values,
            source=source,
            shape=(
                "each is within three standard errors of the two samples",
                bool((np.abs(mean - TABLE[net]) <= 3 * error).sel(net=net).all()),
            ),
            **row,
        )
        for net in NETS
    ]
    found += [
        numbers(
            f"gain-{law}",
            f"the same for a {SPECIAL[law][0]} net with {law} W_h",
            SPECIAL[law][2],
            dataset.special.sel(law=law).mean("seed").values,
            source=source,
            **row,
        )
        for law in SPECIAL
    ]
    signs = {net: np.sign(mean.sel(net=net, lag=100).values) for net in ("tanh", "relu")}
    return [
        *found,
        statement(
            "gain-critical",
            "the critical gain is near 1 for tanh and near √2 for ReLU",
            "tanh near 1, ReLU near √2",
            {
                f"log10 norm of {net} at lag 100 for g = 0.9 and 1.5": [
                    float(mean.sel(net=net, gain=g, lag=100)) for g in (0.9, 1.5)
                ]
                for net in signs
            },
            kind="derived",
            source="a ReLU halves the mean square of the Jacobian",
            criterion="tanh decays at 0.9 and grows at 1.5; ReLU decays at 1.1 and grows at 1.5",
            holds=signs["tanh"][1] < 0 < signs["tanh"][4]
            and signs["relu"][3] < 0 < signs["relu"][4],
        ),
    ]


def about_gru(dataset: "xarray.Dataset") -> list[Claim]:
    """The GRU at rest."""
    return [
        numbers(
            "gru-jacobian",
            "largest distance of the GRU's Jacobian at h = 0 from I/2 + W/4",
            0,
            dataset.distance.values.max(),
            atol=1e-12,
            kind="derived",
            source="z = r = 1/2",
            exact=True,
        ),
        numbers(
            "gru-critical",
            "growth a step of ‖∂h_200/∂h_0‖ for a symmetric W of radius 1.9, 2, 2.1, 3",
            0.5 + dataset.radius.values / 4,
            dataset.growth.values,
            rtol=1e-9,
            kind="derived",
            source="1/2 + radius/4, which passes 1 at 2, the bound of Kanai 2017",
            exact=True,
        ),
    ]


def about_products(dataset: "xarray.Dataset") -> Claim:
    """The spectrum of Gaussian products."""
    measured, formula = dataset.exponent.values
    return numbers(
        "products-spectrum",
        f"largest distance of any of {len(formula)} exponents from the formula",
        0,
        np.abs(measured - formula).max(),
        atol=0.03,
        kind="derived",
        source="(ψ((N - i + 1)/2) + log(2/N))/2; 0.017 off in 2000 steps elsewhere",
    )


def figure_gain(dataset: "xarray.Dataset") -> "Figure":
    """The norm against the lag, for each gain; a panel for each net."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(7.6, 2.6))
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


def figure_gru(dataset: "xarray.Dataset") -> "Figure":
    """The growth of a GRU's Jacobian at rest against the radius of W."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(3.6, 2.8))
    ax = fig.subplots()
    radius = np.linspace(1.8, 3.1, 50)
    ax.plot(radius, 0.5 + radius / 4, color="0.6", label="1/2 + radius/4")
    ax.plot(dataset.radius, dataset.growth, "o", color="#0072B2", label="measured")
    ax.axhline(1, color="0.5", lw=0.8, ls=":")
    ax.set(
        xlabel="radius of W (symmetric)", ylabel=r"growth of $\|\partial h_t/\partial h_0\|$ a step"
    )
    ax.legend()
    return fig


def figure_products(dataset: "xarray.Dataset") -> "Figure":
    """The spectrum of a product of Gaussian matrices, and its formula."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(3.6, 2.8))
    ax = fig.subplots()
    measured, formula = dataset.exponent.values
    index = np.arange(1, len(formula) + 1)
    ax.plot(index, formula, color="0.5", label="formula")
    ax.plot(index, measured, "o", ms=3, color="#0072B2", label="measured")
    ax.set(xlabel="index i", ylabel=r"$\lambda_i$ (nats per step)")
    ax.legend()
    return fig


EXPERIMENT = Paper(
    name="papers/own_references",
    config=Config,
    run=run,
    figure=figure_gain,
    claims=claims,
    quick={"hidden_size": 10, "num_seeds": 2, "size": 6, "num_steps": 60},
    doc=__doc__,
    citation="Our own references: no paper printed these numbers",
    figures={"gain": figure_gain, "gru": figure_gru, "products": figure_products},
    traps=(
        "The same W_h at every step is not normal: a linear net at g = 1 grows by a power of t.",
        "The spectral radius of a Gaussian W of 100 units differs by some percent between draws: "
        "log10 of the norm at lag 100 by about 2. A mean over 5 seeds is no better than 1.",
        "A random W whose leading eigenvalues are a complex pair loses stability a little before "
        "their real part is 2.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
