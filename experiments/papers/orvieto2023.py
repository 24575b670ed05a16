"""Near the unit circle a diagonal recurrence blows its state up by 1/(1 - r²), unless normalised.

A diagonal linear recurrence x_k = Λ x_{k-1} + γ ∘ B u_k whose eigenvalues are uniform on the ring
between the radii r_min and r_max has, with γ = 1 and under white noise or a constant input, ::

    E‖x_∞‖² = log((1 - r_min²)/(1 - r_max²))/(r_max² - r_min²) E‖Bu‖²

Here the state of the cell `lru` is measured with γ = 1 and with its own γ = √(1 - |λ|²), which
makes the factor 1. The eigenvalues of dense and S4D recurrences are those of their step Jacobians.

Source: Orvieto, Smith, Gu, Fernando, Gulcehre, Pascanu, De 2023, arXiv:2303.06349, sections 3, 4.

    python experiments/papers/orvieto2023.py

Took 83 seconds on two cores beside other work.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from _kit import curves, fields, runs
from _paper import Paper

from gradflow import flow, study, unroll
from gradflow.cells import lru, rnn, s4d
from gradflow.study import Claim, numbers, statement
from gradflow.study.figure import Figure

RINGS = ((0.0, 0.9), (0.5, 0.95), (0.5, 0.99), (0.9, 0.99))
"""(r_min, r_max) of the rings."""

NARROW = (0.8, 0.9, 0.95, 0.99)
"""Radii of rings of almost no width."""

RADII = (0.25, 0.5, 0.75)
STEP, STATES = 1e-3, 128
"""Δ and N of the S4D whose eigenvalues the paper gives."""


@dataclass(frozen=True)
class Config(study.Config):
    """The sizes of the networks, and the length of the sequences."""

    hidden_size: int = fields.hidden_size(2000)
    num_steps: int = fields.num_steps(1500)
    dense: int = fields.positive(400, help="Units of the dense networks.")
    num_seeds: int = fields.num_seeds(8)


def growth(config: Config, ring: tuple[float, float], inputs: str, *, normalised: bool) -> float:
    """Measures E‖x‖²/E‖Bu‖² over the second half of the steps, with γ = 1 or the cell's own."""
    cell = lru(1, config.hidden_size, r_min=ring[0], r_max=ring[1])

    def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        k_params, k_noise = jax.random.split(key)
        params = cell.init(k_params)
        if not normalised:
            params = {**params, "gamma": jnp.zeros(config.hidden_size)}
        u = jnp.ones((config.num_steps, 1))
        if inputs == "noise":
            u = jax.random.normal(k_noise, u.shape)
        x = unroll(cell, params, u).outputs[config.num_steps // 2 :]
        B = params["W_x"]
        return jnp.mean(jnp.sum(x**2, axis=1)), jnp.sum(B["re"] ** 2 + B["im"] ** 2)

    size, drive = runs.measure(one, runs.keys(config))
    return float(size.mean() / drive.mean())


def dense_spectrum(config: Config) -> np.ndarray:
    """Measures |λ| of the step Jacobian of linear RNNs with entries N(0, 1/N), (run, unit)."""
    n = config.dense
    cell = rnn(1, n, activation="identity", recurrent_init="normal(gain=1.0)")

    def jacobian(key: jax.Array) -> jax.Array:
        params = cell.init(runs.cell_key(key))
        return jax.jacfwd(lambda h: cell.step(params, h, jnp.zeros(1))[1])(jnp.zeros(n))

    return np.abs([np.linalg.eigvals(jax.jit(jacobian)(key)) for key in runs.keys(config)])


def s4d_spectrum() -> tuple[float, float]:
    """Measures the factor per step of the states of an S4D-Lin, and the largest phase, Δ = 1e-3."""
    cell = s4d(1, 1, state_size=STATES, dt_min=STEP, dt_max=STEP)
    params = cell.init(jax.random.key(0))
    num_steps = 50
    inputs = jnp.zeros((num_steps, 1))
    found = flow.log_norms(cell, params, inputs, source="re,im", target="re,im")
    carry = cell.initial_carry()

    def step(re: jax.Array, im: jax.Array) -> jax.Array:
        moved = cell.step(params, carry._replace(re=re, im=im), jnp.zeros(1))[0]
        return jnp.stack([moved.re, moved.im])

    # A state that is 1 moves to λ: its phase is the angle.
    moved = step(jnp.ones_like(carry.re), jnp.zeros_like(carry.im))
    return float(jnp.exp(found[-1] / num_steps)), float(jnp.arctan2(moved[1], moved[0]).max())


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Measures the growth of the state on all rings, and three spectra."""
    del once  # it takes seconds
    rings, narrow = [], []
    for ring in study.progress(RINGS, "rings"):
        rings.append([
            growth(config, ring, "noise", normalised=False),
            growth(config, ring, "noise", normalised=True),
            growth(config, ring, "constant", normalised=False),
        ])  # fmt: skip
    for r in study.progress(NARROW, "narrow rings"):
        narrow.append(growth(config, (r * (1 - 1e-6), r), "noise", normalised=False))
    modulus, phase = s4d_spectrum()
    return xarray.Dataset(
        {
            "ring_growth": (("ring", "case"), np.array(rings)),
            "narrow_growth": (("radius",), np.array(narrow)),
            "dense_modulus": (("run", "unit"), dense_spectrum(config)),
            "s4d_modulus": ((), modulus),
            "s4d_phase": ((), phase, {"units": "radians"}),
        },
        coords={"case": ["noise", "normalised", "constant"], "radius": list(NARROW)},
    )


def blow_up(r_min: float, r_max: float) -> float:
    """Computes the factor of proposition 3."""
    return float(np.log((1 - r_min**2) / (1 - r_max**2)) / (r_max**2 - r_min**2))


def claims(dataset: xarray.Dataset) -> list[Claim]:
    """The growth of the state and its normalisation; the spectra."""
    modulus = dataset.dense_modulus.values
    wanted = [blow_up(*ring) for ring in RINGS]
    case = {name: dataset.ring_growth.sel(case=name).values for name in dataset.case.values}
    rings = ", ".join(f"({low:g}, {high:g})" for low, high in RINGS)
    return [
        numbers(
            "growth-noise",
            "Under white noise E‖x_∞‖²/E‖Bu‖² is that of proposition 3, on the rings (r_min, "
            f"r_max) = {rings}.",
            wanted,
            case["noise"],
            rtol=0.1,
            source="proposition 3 (forward-pass blow-up)",
        ),
        numbers(
            "growth-constant",
            "Under a constant input the factor is the same, on the rings (0, 0.9) and (0.5, 0.95).",
            wanted[:2],
            case["constant"][:2],
            rtol=0.1,
            source="proposition 3 (forward-pass blow-up)",
        ),
        numbers(
            "growth-narrow",
            "On a ring of radius r without width the factor is 1/(1 - r²), at r = 0.8, 0.9, 0.95 "
            "and 0.99.",
            [1 / (1 - r**2) for r in NARROW],
            dataset.narrow_growth.values,
            rtol=0.1,
            source="section 3.4, the limit below proposition 3",
        ),
        numbers(
            "growth-normalised",
            "With γ = √(1 - |λ|²) the state has the size of the input on all four rings: "
            "E‖x_∞‖²/E‖Bu‖² = 1.",
            1.0,
            case["normalised"],
            rtol=0.1,
            source="section 3.4: γ cancels the 1/(1 - |λ|²) of every direction",
        ),
        numbers(
            "growth-disk",
            "The eigenvalues of a matrix with entries N(0, 1/N) are uniform on the unit disk: the "
            "fractions within the radii 0.25, 0.5 and 0.75.",
            np.square(RADII),
            [np.mean(modulus < r) for r in RADII],
            atol=0.02,
            source="theorem 1 and Fig. 2",
        ),
        statement(
            "growth-stable",
            "So Glorot initialisation gives an approximately stable recurrence.",
            "Glorot initialization provides an approximately stable initialization",
            {"largest |λ|, mean over networks": modulus.max(axis=1).mean()},
            source="section 3.2.2, below theorem 1",
            criterion="the largest |λ| of the networks is between 0.95 and 1.1 on average",
            holds=0.95 < modulus.max(axis=1).mean() < 1.1,
        ),
        numbers(
            "growth-modulus",
            "The eigenvalues of S4D-Lin with Δ = 1e-3 have magnitude exp(-Δ/2) ≈ 0.9995.",
            0.9995,
            float(dataset.s4d_modulus),
            atol=5e-5,
            source="section 4, on discretisation",
            exact=True,
            digits=6,
        ),
        numbers(
            "growth-phase",
            "The phases of S4D-Lin with Δ = 1e-3 and N = 128 fill about [0, π/8].",
            np.pi / 8,
            float(dataset.s4d_phase),
            rtol=0.03,
            source="section 4, on discretisation",
            exact=True,
        ),
    ]


def figure(dataset: xarray.Dataset) -> Figure:
    """The measured growth of the state against the paper's, and the radial law of eigenvalues."""
    fig = study.figure.empty(6.4, 2.8)
    left, right = fig.subplots(1, 2)
    wanted = np.array([blow_up(*ring) for ring in RINGS])
    ends = np.array([1, 100])
    left.loglog(ends, ends, color="0.7", lw=1)
    black, blue, orange, green, pink = curves.SHADES
    shown = (("noise", blue, "o"), ("constant", orange, "s"), ("normalised", pink, "D"))
    for name, color, marker in shown:
        part = slice(2) if name == "constant" else slice(None)
        values = dataset.ring_growth.sel(case=name)[part]
        label = {"noise": "white noise", "constant": "constant input"}.get(name, "normalised by γ")
        left.loglog(wanted[part], values, marker, color=color, mfc="none", label=label)
    limit = 1 / (1 - np.square(NARROW))
    left.loglog(limit, dataset.narrow_growth, "x", color=green, label="narrow rings, noise")
    left.set(xlabel="predicted without γ", ylabel=r"$E\|x\|^2/E\|Bu\|^2$")
    left.set(xlim=(1, 100), ylim=(0.5, 500), title="Growth of the state")
    left.legend(loc="upper left")
    radius = np.sort(np.ravel(dataset.dense_modulus))
    right.plot(radius, np.linspace(0, 1, len(radius)), color=blue, label="measured")
    grid = np.linspace(0, 1, 50)
    right.plot(grid, grid**2, color=black, ls=":", label="uniform disk")
    right.set(xlabel="radius r", ylabel="fraction with |λ| < r", title="Eigenvalues of N(0, 1/N)")
    right.set_xlim(0, 1.1)
    right.legend()
    return fig


EXPERIMENT = Paper(
    name="papers/orvieto2023",
    config=Config,
    run=run,
    figure=figure,
    claims=claims,
    quick={"hidden_size": 50, "num_steps": 100, "dense": 30, "num_seeds": 2},
    doc=__doc__,
    citation="Orvieto, Smith, Gu, Fernando, Gulcehre, Pascanu, De 2023, Resurrecting recurrent "
    "neural networks for long sequences, arXiv:2303.06349",
    figures={"growth": figure},
    traps=(
        "Near r_max = 1 a few eigenvalues carry the constant-input case: E 1/|1 - λ|² converges "
        "slowly in the number of units, and the rings up to 0.99 are compared under noise alone.",
        "The accuracies of the Long Range Arena are not reproduced here.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
