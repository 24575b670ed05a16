"""Whether a net's steps can be run at once is decided by its largest Lyapunov exponent.

The trajectory s_t = step(s_{t-1}, x_t) solves T equations, and Newton's method solves them in
parallel (DEER, `gradflow.parallel`). For nets of many gains: how many iterations it takes, and
how far its states are from the scan's, against the largest exponent λ; and its wall time over
the scan's. The claim: below λ = 0 a few iterations do, far fewer than T; above it about T,
and the states are lost to rounding, which grows as exp(λ t).

Source: Gonzalez et al. 2025, "Predictability enables parallelization of nonlinear state space
models"; Lim, Zhu, Selfridge, Kasim 2023, arXiv:2309.12252 (DEER).

    python experiments/parallel_in_time.py
    python experiments/parallel_in_time.py --hidden_size=8 --num_steps=2000

Takes less than a minute on two cores at the defaults. The seconds in the record are of the machine
that it ran on; all else is the same each time.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from gradflow import flow, study, unroll
from gradflow.cells import rnn
from gradflow.parallel import solve_in_parallel

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEGATIVE, POSITIVE = -0.1, 0.02
"""Exponents below and above which a net counts as clearly ordered, or chaotic; nats per step."""

FEW = 0.1
"""The share of T up to which iterations count as a few."""

REPEATS = 2
"""Each time is the least of so many."""

COLOR, FAILED = "#0072B2", "#D55E00"


@dataclass(frozen=True)
class Config(study.Config):
    """Which nets, how long, and how exactly they are solved."""

    num_seeds: int = study.field(5, help="Nets of each gain.", positive=True)
    gains: tuple[float, ...] = study.field(
        (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0),
        help="Standard deviation of W_h, times √hidden.",
        positive=True,
    )
    hidden_size: int = study.field(16, help="Hidden units, of a tanh RNN.", positive=True)
    input_size: int = study.field(4, help="Channels of gaussian inputs.", positive=True)
    input_std: float = study.field(0.1, help="Standard deviation of an input.", positive=True)
    num_steps: int = study.field(512, help="Steps T.", positive=True)
    tolerance: float = study.field(1e-8, help="Error of a state to be reached.", positive=True)


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """Measures every net; dimensions gain, run (a seed)."""
    return once("all", partial(_measure, config))


def _measure(config: Config) -> "xarray.Dataset":
    import xarray

    k_params, k_inputs = jax.random.split(jax.random.key(config.seed))
    cell = rnn(config.input_size, config.hidden_size, recurrent_init="normal(gain=1)")
    shape = config.num_seeds, config.num_steps, config.input_size
    inputs = config.input_std * jax.random.normal(k_inputs, shape)
    params = jax.vmap(cell.init)(jax.random.split(k_params, config.num_seeds))

    scan = jax.jit(lambda p, x: unroll(cell, p, x).carries)
    limits = {"tolerance": config.tolerance, "max_iterations": config.num_steps}
    newton = jax.jit(lambda p, x: solve_in_parallel(cell, p, x, **limits))
    exponent = jax.jit(
        lambda p, x: flow.lyapunov_exponents(
            cell, p, x, num_exponents=1, burn_in=config.num_steps // 5
        ).exponents[0]
    )
    rows = [
        _one_net(config, (scan, newton, exponent), _scaled(params, i, gain), inputs[i])
        for gain in study.progress(config.gains, "gains")
        for i in range(config.num_seeds)
    ]
    units = {
        "exponent": "nats per step",
        "iterations": "1",
        "converged": "1",
        "error": "1",
        "scan_seconds": "s",
        "newton_seconds": "s",
    }
    shape = len(config.gains), config.num_seeds
    return xarray.Dataset(
        {
            name: (("gain", "run"), np.reshape([row[name] for row in rows], shape), {"units": unit})
            for name, unit in units.items()
        },
        coords={"gain": ("gain", list(config.gains), {"units": "1"})},
        attrs={"num_steps": config.num_steps, "tolerance": config.tolerance},
    )


def _scaled(params: dict, index: int, gain: float) -> dict:
    one = jax.tree.map(lambda leaf: leaf[index], params)
    return one | {"W_h": gain * one["W_h"]}


def _one_net(config: Config, measures: tuple, params: dict, x: jax.Array) -> dict[str, Any]:
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
    """What the compiled function gives, and the least of several wall times."""
    result = jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - begin)
    return result, min(times)


def figure(dataset: "xarray.Dataset") -> "Figure":
    """Iterations, error of the states, and time over the scan's, against the exponent."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(7.0, 2.9))
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
    handles, labels = panels[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return fig


def _scatter(ax: "Axes", dataset: "xarray.Dataset", values: "xarray.DataArray") -> None:
    """A point a net, and the median of each gain as a line."""
    for flag, label, color, marker in (
        (1, "converged", COLOR, "o"),
        (0, "not converged", FAILED, "x"),
    ):
        of = (dataset.converged == flag).values
        ax.plot(dataset.exponent.values[of], values.values[of], marker, color=color, label=label)
    middle = dataset.exponent.median("run"), values.median("run")
    ax.plot(*middle, color="#000000", lw=0.8, label="median of a gain")


def summary(dataset: "xarray.Dataset") -> str:
    """Iterations and errors on either side of λ = 0, and whether they are as claimed."""
    num_steps = int(dataset.attrs["num_steps"])
    ordered, chaotic = dataset.exponent < NEGATIVE, dataset.exponent > POSITIVE
    rows = study.table(
        [
            _row(f"λ < {NEGATIVE:g}", dataset, ordered),
            _row(f"λ > {POSITIVE:g}", dataset, chaotic),
        ]
    )
    if min(int(ordered.sum()), int(chaotic.sum())) < 2:
        return f"{rows}\nundecided: it takes two nets on either side of λ = 0"
    share = dataset.iterations / num_steps
    few = float(share.where(ordered).max()) <= FEW
    many = float(share.where(chaotic).median()) > 0.5
    lost = not bool(dataset.converged.where(chaotic, 0).any())
    exact = float(dataset.error.where(ordered).max()) <= dataset.attrs["tolerance"]
    parts = {
        f"at most {FEW:g} T iterations below": few,
        "within the tolerance below": exact,
        "over T/2 above": many,
        "no solution claimed above": lost,
    }
    said = ", ".join(f"{name}: {'yes' if holds else 'no'}" for name, holds in parts.items())
    word = study.verdict(all(parts.values()))
    return f"{rows}\n{said}\nthe exponent decides what can be parallelised: {word} by this run"


def _row(name: str, dataset: "xarray.Dataset", of: "xarray.DataArray") -> dict[str, str]:
    if not of.any():
        return {"nets": name, "number": "0"}
    iterations, error = (dataset[key].values[of.values] for key in ("iterations", "error"))
    ratio = (dataset.newton_seconds / dataset.scan_seconds).values[of.values]
    low, middle, high = np.quantile(iterations, [0.1, 0.5, 0.9])
    return {
        "nets": name,
        "number": str(int(of.sum())),
        "iterations": f"{middle:.0f} [{low:.0f}, {high:.0f}]",
        "converged": f"{float(dataset.converged.values[of.values].mean()):.2f}",
        "largest error": f"{error.max():.1e}",
        "median time over the scan's": f"{np.median(ratio):.1f}",
    }


EXPERIMENT = study.Experiment(
    name="parallel_in_time",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    section="flow",
    order=13,
    gallery={"parallel_in_time": study.Picture()},
    quick={"gains": (0.5, 1.0, 3.0), "hidden_size": 8, "num_steps": 64, "num_seeds": 3},
    doc=__doc__,
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
