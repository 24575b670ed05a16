"""DEER needs thousands of iterations for a chaotic flow and a few for an observer of it.

Nine chaotic flows in three dimensions are integrated by Euler steps, and so is an observer of each.
The observer reads some coordinates x_g of the flow and one linear measurement of it, and starts
from another state::

    flow       s_t = s_{t-1} + dt F(s_{t-1})
    observer   z   = s_{t-1} with the coordinates x_g in place of its own
               s_t = z + dt (F(z) + Cᵀ C (x_{t-1} - z))         C ~ N(0, 1)

DEER finds all steps at once, from a guess of N(0, 1)::

    s_t <- f(s_{t-1}^old) + J_t (s_{t-1} - s_{t-1}^old)
    until ½ Σ_t ‖s_t - f(s_{t-1})‖² / T < 1e-10

The default has T = 10,000, where the paper has 30,000.

Source: Gonzalez et al. 2025, arXiv:2508.16817, Table 1; flows, starts and the coordinates that an
observer reads are those of the authors' code.

    python experiments/papers/gonzalez2025_flows.py

Takes about three minutes on one core.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from _flows import DT, FLOWS, flow_cell, observer_cell
from _iterations import count_iterations
from _kit import curves, fields
from _paper import Paper

from gradflow import flow, study, unroll
from gradflow.spec import check_name
from gradflow.study import Claim, derived, numbers, statement
from gradflow.study.figure import Figure
from gradflow.unroll.affine import affine_scan, by_entries
from gradflow.unroll.newton import solve_in_parallel

CODE = "the authors' code, experiments/tab1.py"
SECOND = "Table 1 (read through a second source)"


@dataclass(frozen=True)
class Config(study.Config):
    """The flows, and how long they run."""

    seed: int = study.field(42, help="The first seed; 42 is the authors'.")
    num_seeds: int = fields.positive(5, help="Seeds of C and of the guess, for observers.")
    flows: tuple[str, ...] = study.field(tuple(FLOWS), help="Names of the flows.")
    num_steps: int = fields.num_steps(10000)
    flow_seeds: int = fields.positive(1, help="Seeds of the guess, for flows.")


def moves_in_parallel(step: Callable, old: jax.Array, x: jax.Array, r: jax.Array) -> jax.Array:
    """Solves δ_t = J_t δ_{t-1} + r_t by an associative scan.

    Matrices of three rows are multiplied entry by entry. The counts for chaotic flows depend on
    the rounding of these products: `jnp.matmul` gives Lorenz's flow 889 iterations in place of 960
    at T = 3000.
    """
    jacobians = jax.vmap(jax.jacfwd(step))(old, x)
    return affine_scan(jacobians, r[..., None], product=by_entries)[..., 0]


def solve_flow(config: Config, name: str) -> xarray.Dataset:
    """Measures a flow: iterations and error by seed of the guess, and its exponents."""
    T, cell = config.num_steps, flow_cell(name)
    params, x, s_0 = {"C": jnp.zeros(3)}, jnp.zeros((T, 0)), jnp.array(FLOWS[name].start)
    count = partial(count_iterations, cell, moves_in_parallel)
    found = [
        count(params, x, (s_0, sampled(config, seed)[1]), jnp.array([T]))
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


def sampled(config: Config, seed: int) -> tuple[jax.Array, jax.Array]:
    """Samples C and the guess, from the keys of the authors' code."""
    keys = jax.random.split(jax.random.key(config.seed + seed), 6)
    return jax.random.normal(keys[0], (3,)), jax.random.normal(keys[2], (config.num_steps, 3))


def solve_observer(config: Config, name: str) -> xarray.Dataset:
    """Measures the flow's observer, by this script's DEER and by the library's."""
    T, cell = config.num_steps, observer_cell(name)
    s_0 = jnp.array(FLOWS[name].start)
    x = unroll(flow_cell(name), {"C": jnp.zeros(3)}, jnp.zeros((T, 0)), carry=s_0).carries[:-1]
    away = jax.random.normal(jax.random.split(jax.random.key(0), 9)[list(FLOWS).index(name)], (3,))
    rows = []
    for seed in range(config.num_seeds):
        C, guess = sampled(config, seed)
        params, start = {"C": C}, s_0 + away
        ends, lengths = (start, guess), jnp.array([T])
        count, error = count_iterations(cell, moves_in_parallel, params, x, ends, lengths)
        exponent = flow.lyapunov_exponents(cell, params, x, num_exponents=1, carry=start).exponents
        # T iterations always suffice, and one of the observers needs over a hundred.
        library = solve_in_parallel(cell, params, x, tolerance=1e-8, max_iterations=T, carry=start)
        apart = jnp.abs(library.carries - unroll(cell, params, x, carry=start).carries).max()
        rows.append([count[0], error, exponent[0] / DT, library.converged, apart])
    names = ("observer_iterations", "observer_error", "observer_exponent", "converged", "apart")
    columns = np.array(rows, float).T
    return as_dataset({n: ("seed", column) for n, column in zip(names, columns, strict=True)})


def as_dataset(variables: Mapping[str, tuple]) -> xarray.Dataset:
    """Collects variables as NumPy arrays in a dataset."""
    return xarray.Dataset({name: (dims, np.asarray(v)) for name, (dims, v) in variables.items()})


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Measures all flows and their observers; dimensions flow, seed.

    Raises:
      ValueError: If a flow is unknown.
    """
    for name in config.flows:
        check_name("flow", name, FLOWS)
    rows = [
        xarray.merge([
            once(f"{name} flow", partial(solve_flow, config, name)),
            once(f"{name} observer", partial(solve_observer, config, name)),
        ])
        for name in study.progress(config.flows, "flows")
    ]  # fmt: skip
    found = xarray.concat(rows, dim="flow").assign_coords(flow=list(config.flows))
    return found.assign_attrs(num_steps=config.num_steps)


def claims(dataset: xarray.Dataset) -> list[Claim]:
    """Iterations, exponents and states of flows and observers."""
    return [*about_iterations(dataset), *about_exponents(dataset), states_of_observers(dataset)]


def about_iterations(dataset: xarray.Dataset) -> list[Claim]:
    """The iterations of DEER, as Table 1 counts them."""
    T = dataset.attrs["num_steps"]
    flows = dataset.iterations.median("flow_seed")
    observers = dataset.observer_iterations.median("seed")
    authors = dataset.observer_iterations.isel(seed=0)
    return [
        numbers(
            "table1-observers",
            "DEER needs 2 to 14 iterations for an observer (fewest and most, over flows).",
            [2, 14],
            [float(authors.min()), float(authors.max())],
            atol=1,
            shape=("at most 14 for every flow, in the median over seeds", (observers <= 14).all()),
            source=SECOND
            + ", T = 30,000; compared with the first seed here, which is the authors'",
        ),
        statement(
            "table1-flows",
            "DEER needs hundreds of iterations or more for a chaotic flow.",
            "hundreds to 30000 of 30000",
            {f"fewest and most iterations of {T}": [flows.min(), flows.max()]},
            source=SECOND,
            criterion="every flow needs at least 100 iterations, and at least 10 times as many as "
            "its observer",
            holds=(flows >= 100).all() and (flows >= 10 * observers).all(),
        ),
    ]


def about_exponents(dataset: xarray.Dataset) -> list[Claim]:
    """The Lyapunov exponents of flows and observers."""
    largest, stable = dataset.exponents.isel(order=0), dataset.observer_exponent.median("seed")
    off = np.abs(dataset.exponents.sum("order") - dataset.volume)
    off = off / np.maximum(1, np.abs(dataset.volume))
    return [
        statement(
            "table1-exponents",
            "The largest exponent is positive for every flow and negative for its observer.",
            "unpredictable flows, predictable observers",
            {
                "least and largest per unit of time, flows": [largest.min(), largest.max()],
                "least and largest per unit of time, observers": [stable.min(), stable.max()],
            },
            source="Table 1",
            criterion="above 0 for every flow, its median over seeds below 0 for every observer",
            holds=(largest > 0).all() and (stable < 0).all(),
        ),
        derived(
            "table1-volume",
            "The exponents of a flow sum to the mean log |det J| (largest relative difference).",
            0,
            float(off.max()),
            atol=1e-6,
            source="they are equal in exact arithmetic",
        ),
    ]


def states_of_observers(dataset: xarray.Dataset) -> Claim:
    """The states that DEER finds against those of a scan."""
    agree = (dataset.observer_error < 1e-3).all() and (dataset.apart < 1e-6).all()
    return statement(
        "table1-states",
        "For an observer DEER finds the same states as a scan.",
        "the same states",
        {
            "largest difference": float(dataset.observer_error.max()),
            "largest difference by the library's solver": float(dataset.apart.max()),
        },
        source=CODE + " (which records the difference)",
        criterion="within 1e-3 for every flow and seed, and within 1e-6 by the library's own "
        "solver, which reports convergence",
        holds=agree and (dataset.converged == 1).all(),
    )


def figure(dataset: xarray.Dataset) -> Figure:
    """Table 1 as a figure: exponents and iterations of each flow and its observer."""
    fig = study.figure.empty(7.0, 3.0)
    left, right = fig.subplots(1, 2, sharey=True)
    blue, orange = curves.SHADES[1:3]
    rows = np.arange(len(dataset["flow"]))
    looks = {
        "flow": {"color": orange, "marker": "s", "label": "flow"},
        "observer": {"color": blue, "marker": "o", "label": "its observer"},
    }
    columns = (
        (left, dataset.exponents.isel(order=0), dataset.observer_exponent),
        (right, dataset.iterations.median("flow_seed"), dataset.observer_iterations),
    )
    for ax, of_flow, of_observer in columns:
        ax.plot(of_flow, rows, ls="", markersize=5, **looks["flow"])
        low, middle, high = (of_observer.quantile(q, "seed") for q in (0.0, 0.5, 1.0))
        ax.hlines(rows, low, high, color=looks["observer"]["color"], lw=1.0)
        ax.plot(middle, rows, ls="", markersize=5, **looks["observer"])
    T = dataset.attrs["num_steps"]
    left.axvline(0, color="0.3", lw=0.8)
    left.set_yticks(rows, list(dataset["flow"].values))
    left.set(ylim=(len(rows) - 0.5, -0.5), xlabel="largest exponent (per unit of time)")
    right.axvline(T, color="0.3", lw=0.8, ls=":")
    right.set(xscale="log", xlim=(1, 2 * T), xlabel=f"iterations of DEER (dotted: T = {T})")
    left.set_title("Predictability")
    right.set_title("Iterations: median, minimum to maximum")
    study.figure.legend_above(fig, left)
    return fig


EXPERIMENT = Paper(
    name="papers/gonzalez2025_flows",
    config=Config,
    run=run,
    figure=figure,
    claims=claims,
    quick={"flows": ("Lorenz",), "num_steps": 1000, "num_seeds": 2},
    full={"num_steps": 30000},
    doc=__doc__,
    citation="Gonzalez et al. 2025, Predictability enables parallelization of nonlinear state "
    "space models, arXiv:2508.16817",
    figures={"table1": figure},
    traps=(
        "As in the authors' code, the count is one more than the iterations that changed a state, "
        "because the residual is evaluated before each iteration.",
        "For Table 1 the authors' code keeps states that overflow, and then counts T for the flow. "
        "Here they are reset to the guess, an option of the authors' solver.",
        "All nine observers of the code have the feedback Cᵀ C, whatever its table of systems "
        "lists. C, guess and start are sampled from the keys of the code, which gives the same "
        "numbers only with the same random generator.",
        "Euler steps of 0.01 are part of the problem: with them Lorenz's largest exponent is 1.02 "
        "per unit of time, and 0.91 without.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
