"""A chaotic flow takes Newton's method thousands of iterations; an observer of it, a few.

Nine chaotic flows in three dimensions go by Euler's steps, and so does an observer of each, which
is told some coordinates x_g of the flow and one measurement of it, and starts elsewhere::

    flow       s_t = s_{t-1} + dt F(s_{t-1})
    observer   z   = s_{t-1} with x_g in place of its own
               s_t = z + dt (F(z) + Cᵀ C (x_{t-1} - z))         C ~ N(0, 1)

All steps are found at once by DEER, from a guess of N(0, 1)::

    s_t <- f(s_{t-1}^old) + J_t (s_{t-1} - s_{t-1}^old)
    until ½ Σ_t ‖s_t - f(s_{t-1})‖² / T < 1e-10

The default has T = 10,000, where the paper has 30,000.

Source: Gonzalez et al. 2025, arXiv:2508.16817, Table 1; flows, starts and what an observer is told
are those of the authors' code.

    python experiments/papers/gonzalez2025_flows.py

Takes about three minutes on one core.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from _claims import OWN, Claim, Paper, numbers, statement, verdicts
from _newton import deer, moves_at_once

from gradflow import Cell, flow, study, unroll
from gradflow.parallel import solve_in_parallel
from gradflow.spec import unknown_name

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

    from gradflow import Params

DT = 0.01
"""Of Euler's steps, in the flow's units of time."""

CODE = "the authors' code, experiments/tab1.py"
SECOND = "Table 1 (read through a second source)"


class Flow(NamedTuple):
    """A flow: its derivative, where it starts, and the coordinates that an observer is told."""

    slope: Callable[..., tuple]
    start: tuple[float, float, float]
    told: tuple[int, ...]


def chua_slope(x: jax.Array, y: jax.Array, z: jax.Array) -> tuple:
    """Chua's circuit, of a piecewise linear resistor."""
    bend = -0.71429 * x + 0.5 * (-1.142857 + 0.71429) * (jnp.abs(x + 1) - jnp.abs(x - 1))
    return 15.6 * (y - x - bend), x - y + z, -28.0 * y


def abc_slope(x: jax.Array, y: jax.Array, z: jax.Array) -> tuple:
    """Arnold, Beltrami and Childress's, with A, B, C = √3, √2, 1 to six digits."""
    A, B = 1.73205, 1.41421
    sin, cos = jnp.sin, jnp.cos
    return A * sin(z) + cos(y), B * sin(x) + A * cos(z), sin(y) + B * cos(x)


def thomas_slope(x: jax.Array, y: jax.Array, z: jax.Array) -> tuple:
    """Thomas's, cyclically symmetric."""
    return tuple(-1.85 * a + 10 * jnp.sin(b) for a, b in ((x, y), (y, z), (z, x)))


def strizhak_slope(x: jax.Array, y: jax.Array, z: jax.Array) -> tuple:
    """Kawczynski and Strizhak's, with β, γ, κ, μ = -0.4, 0.49, 0.2, 2.1."""
    return 0.49 * (y - x**3 + 6.3 * x), -4.2 * x - y - z - 0.4, 0.2 * (x - z)


FLOWS: dict[str, Flow] = {
    "Rossler": Flow(
        lambda x, y, z: (-y - z, x + 0.2 * y, 0.2 + z * (x - 5.7)),
        (6.5134412, 0.4772013, 0.34164294),
        (),
    ),
    "Lorenz": Flow(
        lambda x, y, z: (10 * (y - x), 28 * x - x * z - y, x * y - 8 / 3 * z),
        (-9.7869288, -15.03852, 20.533978),
        (1,),
    ),
    "Thomas": Flow(thomas_slope, (2.199442, 2.3634225, 3.220197), (1,)),
    "ABC": Flow(abc_slope, (-0.78450179, -0.62887672, -0.17620268), (0, 2)),
    "Sprott B": Flow(
        lambda x, y, z: (y * z, x - y, 1 - x * y), (1.6878282, 1.4848132, -0.53706628), (1,)
    ),
    "Kawczynski-Strizhak": Flow(strizhak_slope, (-1.160501, 5.8636902, -1.2031947), (0, 1)),
    "Vallis": Flow(
        lambda x, y, z: (102 * y - 3 * x, x * z - y, 1 - z - x * y),
        (-6.99286331487343, 0.023254276622294345, -0.1658177563067799),
        (1,),
    ),
    "Chua": Flow(chua_slope, (1.1262351, -0.11386474, -0.78324421), (1,)),
    "Nose-Hoover": Flow(
        lambda x, y, z: (y, -x + y * z, 1.5 - y**2), (-1.9758582, 0.24647527, 0.79024299), (0, 2)
    ),
}
"""In the order of the authors' code, by which the observers' starts are drawn."""


@dataclass(frozen=True)
class Config(study.Config):
    """The flows, and how long they go."""

    seed: int = study.field(42, help="The first seed; 42 is the authors'.")
    num_seeds: int = study.field(5, help="Seeds of C and the guess, of observers.", positive=True)
    flows: tuple[str, ...] = study.field(tuple(FLOWS), help="Flows.")
    num_steps: int = study.field(10000, help="Steps T of a flow.", positive=True)
    flow_seeds: int = study.field(1, help="Seeds of the guess, of flows.", positive=True)


@cache
def flow_cell(name: str, dt: float = DT) -> Cell:
    """One Euler step of a flow; the input is not looked at."""

    def step(params: "Params", s: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        s = s + dt * jnp.stack(FLOWS[name].slope(*s))
        return s, s

    return Cell(lambda key: {"C": jnp.zeros(3)}, step, lambda: jnp.array(FLOWS[name].start))


@cache
def observer_cell(name: str) -> Cell:
    """One step of the observer that is told the flow's state, of which it uses a part, as input."""
    told = np.isin(np.arange(3), FLOWS[name].told)

    def step(params: "Params", s: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        z = jnp.where(told, x, s)
        s = z + DT * (jnp.stack(FLOWS[name].slope(*z)) + params["C"] * (params["C"] @ (x - z)))
        return s, s

    return Cell(lambda key: {"C": jax.random.normal(key, (3,))}, step, lambda: jnp.zeros(3))


def solve_flow(config: Config, name: str) -> "xarray.Dataset":
    """A flow: iterations, error and exponents, by seed of the guess."""
    T, cell = config.num_steps, flow_cell(name)
    params, x, s_0 = {"C": jnp.zeros(3)}, jnp.zeros((T, 0)), jnp.array(FLOWS[name].start)
    found = [
        deer(cell, moves_at_once, params, x, (s_0, drawn(config, seed)[1]), jnp.array([T]))
        for seed in range(config.flow_seeds)
    ]
    exponents = flow.lyapunov_exponents(cell, params, x, carry=s_0).exponents / DT
    carries = unroll(cell, params, x, carry=s_0).carries[:-1]
    J = jax.vmap(jax.jacfwd(lambda s: cell.step(params, s, x[0])[0]))(carries)
    volume = np.linalg.slogdet(np.asarray(J))[1].mean() / DT
    return as_dataset(
        {
            "iterations": ("flow_seed", [int(count[0]) for count, _ in found]),
            "error": ("flow_seed", [float(error) for _, error in found]),
            "exponents": ("order", exponents),
            "volume": ((), volume),
        }
    )


def drawn(config: Config, seed: int) -> tuple[jax.Array, jax.Array]:
    """C and the guess, by the keys that the authors' code draws them from."""
    keys = jax.random.split(jax.random.key(config.seed + seed), 6)
    return jax.random.normal(keys[0], (3,)), jax.random.normal(keys[2], (config.num_steps, 3))


def solve_observer(config: Config, name: str) -> "xarray.Dataset":
    """The flow's observer: the same, and what the library's own solver makes of it."""
    T, cell = config.num_steps, observer_cell(name)
    s_0 = jnp.array(FLOWS[name].start)
    x = unroll(flow_cell(name), {"C": jnp.zeros(3)}, jnp.zeros((T, 0)), carry=s_0).carries[:-1]
    away = jax.random.normal(jax.random.split(jax.random.key(0), 9)[list(FLOWS).index(name)], (3,))
    rows = []
    for seed in range(config.num_seeds):
        C, guess = drawn(config, seed)
        params, start = {"C": C}, s_0 + away
        count, error = deer(cell, moves_at_once, params, x, (start, guess), jnp.array([T]))
        exponent = flow.lyapunov_exponents(cell, params, x, num_exponents=1, carry=start).exponents
        library = solve_in_parallel(
            cell, params, x, tolerance=1e-8, max_iterations=100, carry=start
        )
        apart = jnp.abs(library.carries - unroll(cell, params, x, carry=start).carries).max()
        rows.append([count[0], error, exponent[0] / DT, library.converged, apart])
    names = ("observer_iterations", "observer_error", "observer_exponent", "converged", "apart")
    columns = np.array(rows, float).T
    return as_dataset({n: ("seed", column) for n, column in zip(names, columns, strict=True)})


def as_dataset(variables: Mapping[str, tuple]) -> "xarray.Dataset":
    """The variables, as arrays of NumPy."""
    import xarray

    return xarray.Dataset({name: (dims, np.asarray(v)) for name, (dims, v) in variables.items()})


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """All flows and their observers; dimensions flow, seed.

    Raises:
      ValueError: For a flow that there is not.
    """
    import xarray

    for name in config.flows:
        if name not in FLOWS:
            raise ValueError(unknown_name("flow", name, FLOWS))
    rows = [
        xarray.merge([
            once(f"{name} flow", partial(solve_flow, config, name)),
            once(f"{name} observer", partial(solve_observer, config, name)),
        ])
        for name in study.progress(config.flows, "flows")
    ]  # fmt: skip
    found = xarray.concat(rows, dim="flow").assign_coords(flow=list(config.flows))
    return found.assign_attrs(num_steps=config.num_steps)


def claims(dataset: "xarray.Dataset") -> list[Claim]:
    """Each claim beside what was measured."""
    T = dataset.attrs["num_steps"]
    flows = dataset.iterations.median("flow_seed")
    observers = dataset.observer_iterations.median("seed")
    top, stable = dataset.exponents.isel(order=0), dataset.observer_exponent.median("seed")
    off = np.abs(dataset.exponents.sum("order") - dataset.volume) / np.maximum(
        1, np.abs(dataset.volume)
    )
    authors = dataset.observer_iterations.isel(seed=0)
    return [
        numbers(
            "table1-observers",
            "the fewest and the most iterations of DEER for an observer, over flows",
            [2, 14],
            [authors.min(), authors.max()],
            atol=1,
            shape=("at most 14 for every flow, in the median over seeds", (observers <= 14).all()),
            source=SECOND + ", T = 30,000; the first seed here, which is the authors'",
        ),
        statement(
            "table1-flows",
            "a flow takes it many",
            "hundreds to 30000 of 30000",
            f"{between(flows)} of {T}",
            source=SECOND,
            condition="every flow takes at least 100 iterations, and at least 10 times as many as "
            "its observer",
            holds=(flows >= 100).all() and (flows >= 10 * observers).all(),
        ),
        statement(
            "table1-exponents",
            "the largest exponent is positive for a flow, negative for its observer",
            "unpredictable flows, predictable observers",
            f"{between(top)} and {between(stable)} per unit of time",
            source="Table 1",
            condition="it is above 0 for every flow, and its median over seeds below 0 for every "
            "observer",
            holds=(top > 0).all() and (stable < 0).all(),
        ),
        numbers(
            "table1-volume",
            "largest relative distance of the sum of a flow's exponents from the mean log |det J|",
            0,
            off.max(),
            atol=1e-6,
            source=OWN + "they are equal in exact arithmetic",
            exact=True,
        ),
        statement(
            "table1-states",
            "DEER's states of an observer are those of a scan",
            "the same states",
            f"at most {float(dataset.observer_error.max()):.2g} apart; by `solve_in_parallel` "
            f"{float(dataset.apart.max()):.2g}",
            source=CODE + " (it records the distance)",
            condition="they are within 1e-3 for every flow and seed, and within 1e-6 by the "
            "library's own solver, which says that it converged",
            holds=(dataset.observer_error < 1e-3).all()
            and (dataset.apart < 1e-6).all()
            and (dataset.converged == 1).all(),
        ),
    ]


def between(values: "xarray.DataArray | np.ndarray") -> str:
    """The least and the greatest."""
    return f"{float(np.min(values)):.3g} to {float(np.max(values)):.3g}"


def figure(dataset: "xarray.Dataset") -> "Figure":
    """Table 1 as a picture: exponents and iterations of each flow and its observer."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(7.0, 3.0))
    left, right = fig.subplots(1, 2, sharey=True)
    rows = np.arange(len(dataset.flow))
    looks = {
        "flow": {"color": "#D55E00", "marker": "s", "label": "flow"},
        "observer": {"color": "#0072B2", "marker": "o", "label": "its observer"},
    }
    drawn = (
        (left, dataset.exponents.isel(order=0), dataset.observer_exponent),
        (right, dataset.iterations.median("flow_seed"), dataset.observer_iterations),
    )
    for ax, of_flow, of_observer in drawn:
        ax.plot(of_flow, rows, ls="", markersize=5, **looks["flow"])
        low, middle, high = (of_observer.quantile(q, "seed") for q in (0.0, 0.5, 1.0))
        ax.hlines(rows, low, high, color=looks["observer"]["color"], lw=1.0)
        ax.plot(middle, rows, ls="", markersize=5, **looks["observer"])
    T = dataset.attrs["num_steps"]
    left.axvline(0, color="0.3", lw=0.8)
    left.set_yticks(rows, list(dataset.flow.values))
    left.set(ylim=(len(rows) - 0.5, -0.5), xlabel="largest exponent (per unit of time)")
    right.axvline(T, color="0.3", lw=0.8, ls=":")
    right.set(xscale="log", xlim=(1, 2 * T), xlabel=f"iterations of DEER (dotted: T = {T})")
    left.set_title("Predictability")
    right.set_title("Iterations: median, least to greatest")
    fig.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return fig


def summary(dataset: "xarray.Dataset") -> str:
    """The table of verdicts."""
    return verdicts(claims(dataset))


EXPERIMENT = study.Experiment(
    name="papers/gonzalez2025_flows",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    quick={
        "flows": ("Lorenz",),
        "num_steps": 1000,
        "num_seeds": 2,
    },
    full={"num_steps": 30000},
    doc=__doc__,
)

PAPER = Paper(
    citation="Gonzalez et al. 2025, Predictability enables parallelization of nonlinear state "
    "space models, arXiv:2508.16817",
    experiment=EXPERIMENT,
    claims=claims,
    figures={"table1": figure},
    traps=(
        "The authors' count has one more iteration than moved a state: the residual is looked at "
        "before each. It is kept.",
        "For Table 1 the authors' code leaves what overflows as it is, and a flow whose iterates "
        "overflow then counts T; here it is put back to the guess, as their solver offers.",
        "All nine observers of the code have the feedback Cᵀ C, whatever the entries of its table "
        "of systems say; C, guess and start are drawn here from the keys of the code, which gives "
        "its numbers only where the generator is the same.",
        "Euler's steps of 0.01 are part of the problem: Lorenz's largest exponent is 1.02 per unit "
        "of time by them, and 0.91 without.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
