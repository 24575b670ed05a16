"""The largest Lyapunov exponent decides whether the steps of a network can be computed in parallel.

The trajectory s_t = step(s_{t-1}, x_t) solves T equations, and Newton's method solves them in
parallel (DEER, `gradflow.unroll.newton`). For networks of many gains: the number of iterations and
the distance of the states from those of the sequential scan, against the largest exponent λ; and
the wall time over that of the scan. The claims: below λ = 0 a few iterations suffice, far fewer
than T; above it about T are needed, and the states are lost to rounding errors, which grow as
exp(λ t).

Source: Gonzalez et al. 2025, "Predictability enables parallelization of nonlinear state space
models"; Lim, Zhu, Selfridge, Kasim 2023, arXiv:2309.12252 (DEER).

    python experiments/parallel_in_time.py
    python experiments/parallel_in_time.py --hidden_size=8 --num_steps=2000

Takes less than a minute on two cores at the defaults. The seconds in the record depend on the
machine; all else is the same each time.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from _kit import fields, runs

from gradflow import Cell, flow, study, unroll
from gradflow.cells import rnn
from gradflow.study.figure import Axes, Figure
from gradflow.unroll.newton import solve_in_parallel

NEGATIVE, POSITIVE = -0.1, 0.02
"""Exponents below and above which a network counts as ordered, or chaotic; nats per step."""

FEW = 0.1
"""The fraction of T up to which a number of iterations counts as a few."""

REPEATS = 2
"""Each time is the shortest of so many."""

CONVERGED, FAILED = "#0072B2", "#D55E00"

UNITS = {
    "exponent": "nats per step",
    "iterations": "1",
    "converged": "1",
    "error": "1",
    "scan_seconds": "s",
    "newton_seconds": "s",
}
"""What is measured of each network, with its unit."""


@dataclass(frozen=True)
class Config(study.Config):
    """Which networks, how long, and how exactly they are solved."""

    num_seeds: int = fields.num_seeds(5)
    gains: tuple[float, ...] = fields.gains(
        (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0)
    )
    hidden_size: int = fields.hidden_size(16)
    input_size: int = fields.input_size(4)
    input_std: float = fields.input_std(0.1)
    num_steps: int = fields.num_steps(512)
    tolerance: float = fields.positive(1e-8, help="Error of a state that counts as solved.")


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Measures every network; dimensions gain, run (a seed)."""
    return once("all", partial(_measure, config))


def _measure(config: Config) -> xarray.Dataset:
    cell = rnn(config.input_size, config.hidden_size, recurrent_init="normal(gain=1)")
    inputs = runs.inputs(config, spec=f"gaussian(std={config.input_std!r})")
    params = runs.initialise(cell, runs.keys(config))
    measures = _measures(config, cell)
    rows = [
        _one_network(measures, _scaled(params, i, gain), inputs[i])
        for gain in study.progress(config.gains, "gains")
        for i in range(config.num_seeds)
    ]
    shape, dims = (len(config.gains), config.num_seeds), ("gain", "run")
    return xarray.Dataset(
        {
            name: (dims, np.reshape([row[name] for row in rows], shape), {"units": unit})
            for name, unit in UNITS.items()
        },
        coords={"gain": ("gain", list(config.gains), {"units": "1"})},
        attrs={"num_steps": config.num_steps, "tolerance": config.tolerance},
    )


def _measures(config: Config, cell: Cell) -> tuple[Callable, Callable, Callable]:
    """The sequential scan, Newton's method and the largest exponent, each compiled once."""
    limits = {"tolerance": config.tolerance, "max_iterations": config.num_steps}
    kind: Any = {"num_exponents": 1, "burn_in": config.num_steps // 5}
    return (
        jax.jit(lambda p, x: unroll(cell, p, x).carries),
        jax.jit(lambda p, x: solve_in_parallel(cell, p, x, **limits)),
        jax.jit(lambda p, x: flow.lyapunov_exponents(cell, p, x, **kind).exponents[0]),
    )


def _scaled(params: dict, index: int, gain: float) -> dict:
    one = jax.tree.map(lambda leaf: leaf[index], params)
    return one | {"W_h": gain * one["W_h"]}


def _one_network(measures: tuple, params: dict, x: jax.Array) -> dict[str, Any]:
    scan, newton, exponent = measures
    (carries, scan_seconds), (found, newton_seconds) = (
        _timed(m, params, x) for m in (scan, newton)
    )
    return {
        "exponent": float(exponent(params, x)),
        "iterations": int(found.iterations),
        "converged": int(found.converged),
        "error": float(jnp.max(jnp.abs(found.carries - carries))),
        "scan_seconds": scan_seconds,
        "newton_seconds": newton_seconds,
    }


def _timed(function: Callable, *arguments: Any) -> tuple[Any, float]:
    """Calls a compiled function; gives its result and the shortest of several wall times."""
    result = jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - begin)
    return result, min(times)


def figure(dataset: xarray.Dataset) -> Figure:
    """Iterations, error of the states, and time over the scan's, against the exponent."""
    fig = study.figure.empty(7.0, 2.9)
    panels = fig.subplots(1, 3)
    num_steps = int(dataset.attrs["num_steps"])
    error = np.maximum(dataset.error, 1e-17)  # an error of exactly 0 has no logarithm
    drawn = (
        (dataset.iterations, "Newton iterations", num_steps, f"T = {num_steps}"),
        (error, "largest error of a state", dataset.attrs["tolerance"], "tolerance"),
        (dataset.newton_seconds / dataset.scan_seconds, "time / time of the scan", 1, "the scan"),
    )
    for ax, (values, label, line, name) in zip(panels, drawn, strict=True):
        _scatter(ax, dataset, values)
        ax.axhline(line, color="#606060", linestyle=":", lw=1.0)
        ax.annotate(name, (0.02, line), xycoords=("axes fraction", "data"), fontsize=8,
                    xytext=(0, 2), textcoords="offset points", color="#606060")  # fmt: skip
        ax.set(yscale="log", title=label)
        ax.axvline(0, color="#000000", lw=0.6)
    panels[1].set_xlabel("largest Lyapunov exponent λ (nats per step)")
    study.figure.legend_above(fig, panels[0])
    return fig


def _scatter(ax: Axes, dataset: xarray.Dataset, values: xarray.DataArray) -> None:
    """Draws a point for each network, and the median of each gain as a line."""
    for flag, label, color, marker in (
        (1, "converged", CONVERGED, "o"),
        (0, "not converged", FAILED, "x"),
    ):
        of = (dataset.converged == flag).values
        ax.plot(dataset.exponent.values[of], values.values[of], marker, color=color, label=label)
    middle = dataset.exponent.median("run"), values.median("run")
    ax.plot(*middle, color="#000000", lw=0.8, label="median of a gain")


def _sides(dataset: xarray.Dataset) -> dict[str, xarray.DataArray]:
    """Which networks are clearly ordered, and which clearly chaotic."""
    return {
        f"λ < {NEGATIVE:g}": dataset.exponent < NEGATIVE,
        f"λ > {POSITIVE:g}": dataset.exponent > POSITIVE,
    }


def summary(dataset: xarray.Dataset) -> str:
    """Iterations and errors on either side of λ = 0."""
    return study.table([_row(name, dataset, of) for name, of in _sides(dataset).items()])


def _row(name: str, dataset: xarray.Dataset, of: xarray.DataArray) -> dict[str, str]:
    if not of.any():
        return {"networks": name, "number": "0"}
    iterations, error = (dataset[key].values[of.values] for key in ("iterations", "error"))
    ratio = (dataset.newton_seconds / dataset.scan_seconds).values[of.values]
    low, middle, high = np.quantile(iterations, [0.1, 0.5, 0.9])
    return {
        "networks": name,
        "number": str(int(of.sum())),
        "iterations": f"{middle:.0f} [{low:.0f}, {high:.0f}]",
        "converged": f"{float(dataset.converged.values[of.values].mean()):.2f}",
        "largest error": f"{error.max():.1e}",
        "median time over the scan's": f"{np.median(ratio):.1f}",
    }


def claims(dataset: xarray.Dataset) -> list[study.Claim]:
    """What the sign of the exponent decides; inconclusive with fewer than two networks a side."""
    ordered, chaotic = _sides(dataset).values()
    fraction = dataset.iterations / int(dataset.attrs["num_steps"])
    most, middle = float(fraction.where(ordered).max()), float(fraction.where(chaotic).median())
    error, tolerance = float(dataset.error.where(ordered).max()), dataset.attrs["tolerance"]
    converged = float(dataset.converged.where(chaotic).mean())
    enough = {name: int(of.sum()) > 1 for name, of in (("below", ordered), ("above", chaotic))}
    return [
        study.claim(
            "few-iterations-below",
            "Below λ = 0 Newton's method needs far fewer iterations than there are steps.",
            most <= FEW if enough["below"] else None,
            measured={"largest number of iterations over T": most},
            criterion=f"at most {FEW:g} T iterations in every network with λ < {NEGATIVE:g}",
        ),
        study.claim(
            "exact-below",
            "Below λ = 0 the parallel states are those of the sequential scan.",
            error <= tolerance if enough["below"] else None,
            measured={"largest error": error},
            criterion=f"errors up to the tolerance {tolerance:g} in every network with "
            f"λ < {NEGATIVE:g}",
        ),
        study.claim(
            "many-iterations-above",
            "Above λ = 0 Newton's method needs about as many iterations as there are steps.",
            middle > 0.5 if enough["above"] else None,
            measured={"median number of iterations over T": middle},
            criterion=f"over T/2 iterations in the median of networks with λ > {POSITIVE:g}",
        ),
        study.claim(
            "lost-above",
            "Above λ = 0 the parallel solution is lost to rounding errors.",
            converged == 0 if enough["above"] else None,
            measured={"fraction converged": converged},
            criterion=f"no network with λ > {POSITIVE:g} converges",
        ),
    ]


EXPERIMENT = study.Experiment(
    name="parallel_in_time",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    claims=claims,
    section="flow",
    order=13,
    gallery={"parallel_in_time": study.Picture()},
    quick={"gains": (0.5, 1.0, 3.0), "hidden_size": 8, "num_steps": 64, "num_seeds": 3},
    doc=__doc__,
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
