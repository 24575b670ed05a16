"""Near |λ| = 1 the loss is sharp in λ, but for the modulus not in an exponential parametrisation.

The loss of one complex linear unit, a student λ against a teacher λ* under white input,
L = ½ Σ_k |λ^k - λ*^k|², over two real parameters of λ::

    Cartesian     λ = a + i b                  H = S diag(1, 1)
    polar         λ = ν exp(i θ)               H = S diag(1, ν²)
    exponential   λ = exp(-exp ω) exp(i θ)     H = S diag((ν log ν)², ν²)

at the optimum, with ν = |λ*| and S = Σ_k k² ν^{2(k-1)} = (1 + ν²)/(1 - ν²)³. H is computed by
automatic differentiation of the sum over 4000 steps.

Source: Zucchet, Orvieto 2024, arXiv:2405.21064, Fig. 6; the closed forms are our own.

    python experiments/papers/zucchet2024_hessian.py

Takes about 10 seconds on two cores.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from _kit import fields
from _paper import Paper

from gradflow import study
from gradflow.study import Claim, derived, statement
from gradflow.study.figure import Figure

STEPS = 4000
MODULI = (0.36, 0.68, 0.84, 0.92, 0.96, 0.98, 0.99)
ANGLE = 0.5
SHOWN = 0.96
WAYS: dict[str, Callable[[jax.Array], tuple[jax.Array, jax.Array]]] = {
    "Cartesian": lambda p: (jnp.hypot(p[0], p[1]), jnp.arctan2(p[1], p[0])),
    "polar": lambda p: (p[0], p[1]),
    "exponential": lambda p: (jnp.exp(-jnp.exp(p[0])), p[1]),
}
"""The parametrisations: from two real parameters to modulus and angle."""


@dataclass(frozen=True)
class Config(study.Config):
    """The grid of the loss landscapes."""

    grid: int = fields.positive(81, help="Points along each axis of a landscape.")


def optimum(way: str, modulus: float) -> jax.Array:
    """Gives the parameters of the teacher."""
    if way == "Cartesian":
        return modulus * jnp.array([jnp.cos(ANGLE), jnp.sin(ANGLE)])
    first = jnp.log(-jnp.log(modulus)) if way == "exponential" else modulus
    return jnp.array([first, ANGLE])


def loss(p: jax.Array, teacher: jax.Array, way: str) -> jax.Array:
    """Computes ½ Σ_k |λ^k - λ*^k|² over 4000 steps by modulus and angle, in real numbers."""
    k = jnp.arange(1, STEPS)
    (r, theta), (r_0, theta_0) = WAYS[way](p), WAYS[way](teacher)
    a, b = r**k, r_0**k
    return 0.5 * jnp.sum(a**2 + b**2 - 2 * a * b * jnp.cos(k * (theta - theta_0)))


def measure(config: Config, way: str) -> tuple[np.ndarray, np.ndarray]:
    """Computes the Hessian at each optimum, and the loss landscape around one of them."""
    hessian = jax.jit(jax.hessian(partial(loss, way=way)))
    optima = [optimum(way, modulus) for modulus in MODULI]
    best = optimum(way, SHOWN)
    away = np.linspace(-0.3, 0.3, config.grid)

    def at(x: jax.Array, y: jax.Array) -> jax.Array:
        return loss(best + jnp.stack([x, y]), best, way)

    around = jax.jit(jax.vmap(jax.vmap(at, (None, 0)), (0, None)))
    return np.stack([hessian(p, p) for p in optima]), np.asarray(around(away, away))


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Computes Hessians and loss landscapes of the three parametrisations."""
    del once  # it takes seconds
    found = [measure(config, way) for way in WAYS]
    return xarray.Dataset(
        {
            "hessian": (("way", "modulus", "row", "column"), np.stack([h for h, _ in found])),
            "landscape": (("way", "first", "second"), np.stack([land for _, land in found])),
        },
        coords={"way": list(WAYS), "modulus": list(MODULI),
                "first": np.linspace(-0.3, 0.3, config.grid),
                "second": np.linspace(-0.3, 0.3, config.grid)},
    )  # fmt: skip


def closed_forms() -> np.ndarray:
    """Computes H in closed form, (way, modulus, 2, 2)."""
    nu = np.array(MODULI)
    S = (1 + nu**2) / (1 - nu**2) ** 3
    factors = [(1, 1), (1, nu**2), ((nu * np.log(nu)) ** 2, nu**2)]
    diagonals = [np.stack([S * f * np.ones_like(nu) for f in pair]) for pair in factors]
    return np.einsum("wim,ij->wmij", np.stack(diagonals), np.eye(2))


def slopes(dataset: xarray.Dataset) -> np.ndarray:
    """Fits the slope of log H_11 against log 1/(1 - ν) over the last three moduli, (way,)."""
    last = dataset.hessian.isel(row=0, column=0, modulus=slice(-3, None))
    x = -np.log(1 - last.modulus.values)
    return np.polyfit(x, np.log(last.transpose("modulus", "way").values), 1)[0]


def claims(dataset: xarray.Dataset) -> list[Claim]:
    """The Hessian against its closed form, and how its curvature grows."""
    exact = closed_forms()
    size = np.abs(exact).max(axis=(-2, -1), keepdims=True)
    apart = np.abs(dataset.hessian.values - exact) / size
    curved = dataset.hessian.isel(row=0, column=0)
    grown = (curved.isel(modulus=-1) / curved.isel(modulus=0)).values
    return [
        derived(
            "fig6-hessian",
            "H is that of the closed form (measured: the largest distance of an entry, relative "
            "to the largest entry).",
            0,
            apart.max(),
            atol=1e-6,
            source="S diag(...), see the docstring; the paper's is a picture",
        ),
        derived(
            "fig6-slopes",
            "H_11 grows as 1/(1 - ν) to the power 3 in Cartesian and polar parameters, and to the "
            "power 1 in exponential ones (measured: the log-log slopes).",
            [3.0, 3.0, 1.0],
            slopes(dataset),
            atol=0.1,
            source="S grows as (1 - ν)⁻³, (ν log ν)² falls as (1 - ν)²",
        ),
        statement(
            "fig6-loss",
            "The exponential parametrisation reduces the curvature in the modulus.",
            "Fig. 6",
            {"growth of the curvature in the first parameter from |λ*| = 0.36 to 0.99": grown},
            source="Fig. 6",
            criterion="it grows over 1000 times more in Cartesian and polar parameters",
            holds=grown[:2].min() > 1000 * grown[2],
            picture=True,
            exact=True,
        ),
    ]


def figure(dataset: xarray.Dataset) -> Figure:
    """The loss around the teacher in each parametrisation, and the curvature by its modulus."""
    fig = study.figure.empty(7.0, 4.6)
    top, bottom = fig.subfigures(2, 1, height_ratios=(1.1, 1), squeeze=False)[:, 0]
    axes = top.subplots(1, 3, sharey=True)
    names = {"Cartesian": ("a", "b"), "polar": ("ν", "θ"), "exponential": ("ω", "θ")}
    levels, drawn = np.linspace(-3, 2, 21), []
    for ax, (way, (x, y)) in zip(axes, names.items(), strict=True):
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            land = np.log10(dataset.landscape.sel(way=way).values.T)
        land = np.clip(np.where(np.isfinite(land), land, 2.0), -3, 2)
        drawn.append(
            ax.contourf(dataset.first, dataset.second, land, levels=levels, cmap="viridis")
        )
        ax.plot([0], [0], "*", color="white", mec="black")
        ax.set(title=way, xlabel=f"{x} − {x}*", ylabel=f"{y} − {y}*")
    top.colorbar(drawn[0], ax=list(axes), ticks=[-3, -2, -1, 0, 1, 2]).set_label(
        rf"$\log_{{10}}$ loss, $|\lambda^*|$ = {SHOWN}"
    )
    ax = bottom.subplots()
    looks = zip(names, ("#E69F00", "#000000", "#0072B2"), ("o", "s", "^"), (5, 3, 1.5), strict=True)
    for way, color, marker, width in looks:  # widths differ because some curves are equal
        curved = dataset.hessian.sel(way=way)
        for entry, line in ((0, "-"), (1, ":")):
            look = {"color": color, "marker": marker, "ms": 2 + width, "lw": width, "ls": line}
            values = curved.isel(row=entry, column=entry)
            ax.loglog(1 - dataset.modulus, values, label=f"{way}, {names[way][entry]}", **look)
    ax.invert_xaxis()
    ax.set(xlabel="1 − |λ*|", ylabel="curvature at the optimum")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return fig


EXPERIMENT = Paper(
    name="papers/zucchet2024_hessian",
    config=Config,
    run=run,
    figure=figure,
    claims=claims,
    quick={"grid": 11},
    doc=__doc__,
    citation="Zucchet, Orvieto 2024, Recurrent neural networks: vanishing and exploding gradients "
    "are not the end of the story, arXiv:2405.21064",
    figures={"fig6": figure},
    traps=("The panels of the original were not seen; the figure follows its description.",),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
