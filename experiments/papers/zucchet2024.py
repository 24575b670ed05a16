"""A linear unit's sensitivity explodes as its eigenvalue nears 1, even if no gradient explodes.

One linear unit h_{t+1} = λ h_t + x_{t+1}, whose input has the autocorrelation ρ^|d|::

    Var h      = (1 + ρλ) / ((1 - ρλ)(1 - λ²))
    Var dh/dλ  = ((1 + λ²)(1 - λ²ρ²) + 2 (1 - λ²) λρ) / ((1 - λ²)³ (1 - λρ)²)
    L(λ, λ*)   = ½ (1/(1 - |λ|²) + 1/(1 - |λ*|²) - 2 Re 1/(1 - λ conj λ*))

L is the loss of a student λ against a teacher λ* under white input. The variances are computed from
the stationary covariance of (x, h, dh/dλ), the loss from the two impulse responses, and one point
by simulation.

Source: Zucchet, Orvieto 2024, arXiv:2405.21064, Fig. 1 and 2.

    python experiments/papers/zucchet2024.py

Takes about 15 seconds on two cores.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from _kit import fields
from _paper import Paper
from numpy.typing import ArrayLike

from gradflow import study, unroll
from gradflow.cells import rnn
from gradflow.study import Claim, derived, numbers, statement
from gradflow.study.figure import Axes, Figure

RHOS = (0.0, 0.9, 0.99, 0.999, 1.0)
TEACHERS = (0.36, 0.68, 0.84, 0.92, 0.96, 0.98, 0.99)
CODE = "the authors' code, figures/1D-case.ipynb"


@dataclass(frozen=True)
class Config(study.Config):
    """The points along λ, and the size of the simulation."""

    points: int = fields.positive(81, help="Values of λ, even in log10(1 - λ).")
    chains: int = fields.positive(20000, help="Sequences of the simulation.")
    num_steps: int = fields.positive(400, help="Time steps of each sequence.")


def var_h(lam: ArrayLike, rho: ArrayLike) -> np.ndarray:
    """Computes the variance of h by the paper's formula."""
    lam, rho = np.asarray(lam), np.asarray(rho)
    return (1 + rho * lam) / ((1 - rho * lam) * (1 - lam**2))


def var_dh(lam: ArrayLike, rho: ArrayLike) -> np.ndarray:
    """Computes the variance of dh/dλ by the paper's formula."""
    lam, rho = np.asarray(lam), np.asarray(rho)
    top = (1 + lam**2) * (1 - lam**2 * rho**2) + 2 * (1 - lam**2) * lam * rho
    return top / ((1 - lam**2) ** 3 * (1 - lam * rho) ** 2)


def loss(lam: np.ndarray, teacher: np.ndarray) -> np.ndarray:
    """Computes the loss of a student λ against a teacher λ* by the paper's formula."""
    own = 1 / (1 - np.abs(lam) ** 2) + 1 / (1 - np.abs(teacher) ** 2)
    return 0.5 * (own - 2 * np.real(1 / (1 - lam * np.conj(teacher))))


def covariance(lam: jax.Array, rho: jax.Array) -> jax.Array:
    """Computes the stationary covariance of (x, h, dh/dλ)."""
    # The sum over steps is doubled. All entries are positive, so that no digits cancel.
    one, zero = jnp.ones(()), jnp.zeros(())
    move = jnp.stack([
        jnp.stack([rho, zero, zero]),
        jnp.stack([rho, lam, zero]),
        jnp.stack([zero, one, lam]),
    ])  # fmt: skip
    enter = jnp.array([1.0, 1.0, 0.0])

    def double(_: int, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        total, power = state
        return total + power @ total @ power.T, power @ power

    noise = (1 - rho**2) * jnp.outer(enter, enter)
    return jax.lax.fori_loop(0, 24, double, (noise, move))[0]


def constant_input(lam: jax.Array) -> jax.Array:
    """Computes the limit of (h, dh/dλ) under x = 1 by doubling the affine map."""
    move = lam * jnp.eye(2) + jnp.array([[0.0, 0.0], [1.0, 0.0]])

    def double(_: int, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        total, power = state
        return total + power @ total, power @ power

    return jax.lax.fori_loop(0, 24, double, (jnp.array([1.0, 0.0]), move))[0]


def response_loss(lam: jax.Array, teacher: jax.Array) -> jax.Array:
    """Computes ½ Σ_k |λ^k - λ*^k|² over 4000 steps by complex powers."""
    steps = jnp.arange(4000)
    return 0.5 * jnp.sum(jnp.abs(_powers(lam, steps) - _powers(teacher, steps)) ** 2)


def _powers(lam: jax.Array, steps: jax.Array) -> jax.Array:
    turn = jnp.exp(1j * jnp.angle(lam) * steps)
    return turn * jnp.where(steps == 0, 1.0, jnp.abs(lam) ** steps)


def simulate(config: Config, lam: float, rho: float) -> tuple[np.ndarray, np.ndarray]:
    """Simulates h_T and dh_T/dλ, the second by forward differentiation of the unroll."""
    cell = rnn(1, 1, activation="identity")
    keys = jax.random.split(jax.random.key(config.seed), 2)
    x_0 = jax.random.normal(keys[0], (config.chains,))
    noise = jax.random.normal(keys[1], (config.num_steps, config.chains))

    def input_step(x: jax.Array, e: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = rho * x + jnp.sqrt(1 - rho**2) * e
        return x, x

    def last(lam: jax.Array) -> jax.Array:
        params = {"W_h": jnp.reshape(lam, (1, 1)), "W_x": jnp.ones((1, 1)), "b": jnp.zeros(1)}
        inputs = jax.lax.scan(input_step, x_0, noise)[1]
        return unroll(cell, params, inputs[:, :, None]).outputs[-1, :, 0]

    h, dh = jax.jit(lambda at: jax.jvp(last, (at,), (jnp.ones(()),)))(jnp.asarray(lam))
    return np.asarray(h), np.asarray(dh)


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Computes variances over λ and ρ, losses over λ and the angle, and one point by simulation."""
    del once  # it takes seconds
    gap = np.logspace(0, -4, config.points)
    lam = 1 - gap
    free = jax.vmap(jax.vmap(covariance, (0, None)), (None, 0))
    grid = np.asarray(jax.jit(free)(jnp.asarray(lam), jnp.asarray(RHOS[:-1])))
    held = np.asarray(jax.jit(jax.vmap(constant_input))(jnp.asarray(lam))) ** 2
    over = jax.jit(jax.vmap(jax.vmap(response_loss, (0, None)), (None, 0)))
    students = np.linspace(0, 0.995, 200)
    angles = np.linspace(0, np.pi, 101)
    teachers = np.array(TEACHERS)
    turned = np.exp(1j * angles)[None] * teachers[:, None]
    around = jax.jit(jax.vmap(jax.vmap(response_loss, (0, None))))
    h, dh = simulate(config, 0.9, 0.9)
    return xarray.Dataset(
        {
            "var_h": (("rho", "lam"), np.concatenate([grid[:, :, 1, 1], held[None, :, 0]])),
            "var_dh": (("rho", "lam"), np.concatenate([grid[:, :, 2, 2], held[None, :, 1]])),
            "loss": (("teacher", "student"), np.asarray(over(students + 0j, teachers + 0j))),
            "turned": (("teacher", "angle"), np.asarray(around(turned, teachers + 0j))),
            "simulated": (("moment",), [h.var(), dh.var()]),
        },
        coords={"rho": list(RHOS), "lam": lam, "teacher": teachers, "student": students,
                "angle": angles, "moment": ["h", "dh"]},
    )  # fmt: skip


def slope(dataset: xarray.Dataset, rho: float) -> float:
    """Fits the slope of log Var dh/dλ against log 1/(1 - λ) for λ of 0.99 and more."""
    data = dataset.var_dh.sel(rho=rho)
    near = data.lam >= 0.99 - 1e-9
    return float(np.polyfit(-np.log(1 - data.lam[near]), np.log(data[near]), 1)[0])


def normalised(dataset: xarray.Dataset) -> xarray.DataArray:
    """Computes Var d(γh)/dν = γ² (λ log λ)² Var dh/dλ: γ = √(1 - λ²) fixed, λ = exp(-exp ν)."""
    lam = dataset.lam.where(dataset.lam > 0)
    return dataset.var_dh * (1 - lam**2) * (lam * np.log(lam)) ** 2


def claims(dataset: xarray.Dataset) -> list[Claim]:
    """The formulas of the variances and of the loss, and the effect of normalisation."""
    return [*about_variances(dataset), *about_loss(dataset), about_normalisation(dataset)]


def about_variances(dataset: xarray.Dataset) -> list[Claim]:
    """Var h and Var dh/dλ, and how fast the second grows."""
    lam, rho = dataset.lam.values[None], dataset.rho.values[:, None]
    return [
        *(
            derived(
                f"fig1-{name}",
                f"{words} is that of the formula at every λ and ρ (measured: the largest relative "
                "distance).",
                0,
                np.max(np.abs(dataset[name].values / formula(lam, rho) - 1)),
                atol=1e-6,
                source=CODE + " (formula)",
            )
            for name, words, formula in (("var_h", "Var h", var_h), ("var_dh", "Var dh/dλ", var_dh))
        ),
        numbers(
            "fig1-top",
            "Var dh/dλ at λ = 0.9999 and ρ = 1, the top of panel A, is 1e16.",
            1e16,
            dataset.var_dh.values[-1, -1],
            rtol=1e-6,
            source=CODE + " (saved output)",
            exact=True,
        ),
        numbers(
            "fig1-simulated",
            "A simulation at λ = ρ = 0.9 has the Var h and Var dh/dλ of the formulas.",
            [var_h(0.9, 0.9), var_dh(0.9, 0.9)],
            dataset.simulated.values,
            rtol=0.05,
            kind="derived",
            source=CODE + " (formula)",
        ),
        *(
            derived(
                f"fig1-slope{rho}",
                f"Var dh/dλ at ρ = {rho} grows as 1/(1 - λ) to the power {power:g} (measured: the "
                "log-log slope).",
                power,
                slope(dataset, rho),
                atol=0.05,
                source=source,
            )
            for rho, power, source in (
                (0, 3.0, "(1 - λ²)³ of the formula"),
                (1, 4.0, "1/(1 - λ)⁴, for h = x/(1 - λ)"),
            )
        ),
    ]


def about_loss(dataset: xarray.Dataset) -> list[Claim]:
    """The loss over λ and over the angle."""
    teachers = dataset.teacher.values[:, None]
    turned = teachers * np.exp(1j * dataset.angle.values)[None]
    students = dataset.student.values[None]
    cases = (
        ("loss", "λ", dataset.loss.values, loss(students, teachers)),
        ("angle", "the angle between student and teacher", dataset.turned.values,
         loss(turned, teachers)),
    )  # fmt: skip
    return [
        derived(
            f"fig1-{name}",
            f"The loss over {over} is that of the formula (measured: the largest distance, "
            "relative to its size).",
            0,
            (np.abs(found - formula) / (1 + formula)).max(),
            atol=1e-6,
            source=CODE + " (formula)",
        )
        for name, over, found, formula in cases
    ]


def about_normalisation(dataset: xarray.Dataset) -> Claim:
    """The sensitivity with normalisation and reparametrisation."""
    near = [
        normalised(dataset).sel(rho=rho).where(dataset.lam >= 0.9).dropna("lam")
        for rho in (0.0, 1.0)
    ]
    white, constant = (values.max() / values.min() for values in near)
    return statement(
        "fig2-normalised",
        "Normalisation and reparametrisation bound the sensitivity under white inputs, but not "
        "under constant ones.",
        "Fig. 2",
        {
            "largest over least for λ >= 0.9 at ρ = 0": white,
            "largest over least for λ >= 0.9 at ρ = 1": constant,
        },
        source="Fig. 2 and " + CODE,
        criterion="Var d(γh)/dν stays within a factor of 2 at ρ = 0 and grows over 100 times at "
        "ρ = 1",
        holds=white < 2 and constant > 100,
        picture=True,
        exact=True,
    )


def figure_1(dataset: xarray.Dataset) -> Figure:
    """Panels A (variances), B (loss over λ) and C (loss over the angle)."""
    fig = study.figure.empty(7.0, 2.7)
    left, middle, right = fig.subplots(1, 3)
    _variances(left, dataset, dataset.var_dh, dataset.var_h)
    left.set(title="A  variance of dh/dλ", ylim=(1e-1, 1e17))
    for index, teacher in enumerate(dataset.teacher.values):
        look = {"color": str(0.75 - 0.1 * index), "label": f"{teacher:g}"}
        middle.plot(dataset.student, dataset.loss.sel(teacher=teacher), **look)
        right.semilogy(dataset.angle / np.pi, dataset.turned.sel(teacher=teacher), **look)
    middle.set(
        yscale="log", ylim=(1e-3, 1e2), xlabel="λ", ylabel="loss", title="B  loss, teachers λ*"
    )
    right.set(ylim=(1e-3, 1e2), xlabel="(θ - θ*)/π", title="C  loss over the angle")
    right.legend(fontsize=6, ncols=2)
    return fig


def figure_2(dataset: xarray.Dataset) -> Figure:
    """The variances with normalisation and the exponential parametrisation."""
    fig = study.figure.empty()
    ax = fig.subplots()
    _variances(ax, dataset, normalised(dataset), dataset.var_h * (1 - dataset.lam**2))
    ax.set(title="Variance of d(γh)/dν, λ = exp(−exp ν)")
    return fig


def _variances(
    ax: Axes, dataset: xarray.Dataset, sensitivity: xarray.DataArray, size: xarray.DataArray
) -> None:
    x = -np.log10(1 - dataset.lam)
    for index, rho in enumerate(dataset.rho.values):
        color = ("#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00")[index]
        ax.semilogy(x, size.sel(rho=rho), color="0.8", lw=0.8)
        ax.semilogy(x, sensitivity.sel(rho=rho), color=color, label=f"ρ = {rho:g}")
    ax.set_xticks([0, 2, 4], ["0", "0.99", "0.9999"])
    ax.set_xlabel("λ")
    ax.legend(fontsize=6)


EXPERIMENT = Paper(
    name="papers/zucchet2024",
    config=Config,
    run=run,
    figure=figure_1,
    claims=claims,
    quick={"points": 41, "chains": 2000},
    doc=__doc__,
    citation="Zucchet, Orvieto 2024, Recurrent neural networks: vanishing and exploding gradients "
    "are not the end of the story, arXiv:2405.21064",
    figures={"fig1": figure_1, "fig2": figure_2},
    traps=("One tick label of the authors' later figure says 0.32 where the teacher is 0.36.",),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
