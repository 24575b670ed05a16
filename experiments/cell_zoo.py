"""How far the gradient of every cell reaches at initialisation, a small panel for each cell.

For each cell of the field, initialised as in its paper and on the same gaussian inputs:
log10 ‖∂h_T/∂h_k‖ against the lag T - k, all on one scale, the farthest horizon first. The
horizon is the first lag at which the median norm is 1e-3 or less; a run is cut if its gradient is
exactly zero at the longest lag. The claims: before any training, cells of one size differ by more
than ten orders of magnitude at lag 100; and gates do not decide it, for gated cells lie on
either side of the cells without.

Source: the paper of each cell, named in its docstring; Hochreiter 1991 for the norm.

    python experiments/cell_zoo.py
    python experiments/cell_zoo.py --cells='lstm,gru,path/to/mine.py:my_cell' --hidden_size=64

Takes about two minutes on two cores at the defaults, nearly all of it to compile.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from _kit import cells, curves, fields, rates, runs

from gradflow import flow, study
from gradflow.cells import CELLS

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gradflow import Cell

VARIANTS = (
    "lstm(forget_gate=False)",
    "lstm(coupled=True)",
    "lstm(peephole=True)",
    "lstm(forget_bias='chrono(max_lag=100)')",
    "rnn(activation='relu')",
    "stack(cells='gru,gru')",
)
"""Cells of the zoo that are options of others."""

COLORS = {
    "vanishing": "#D55E00",
    "stable": "#009E73",
    "exploding": "#0072B2",
    "inconclusive": "#999999",
    "undefined": "#000000",
}
ORDERS = (-20, 5)
"""The scale of every panel, in log10."""

APART = 10.0
"""Orders of magnitude by which the cells are claimed to differ."""

TITLE_WIDTH = 22  # characters that fit over a panel


@dataclass(frozen=True)
class Config(study.Config):
    """Which cells, of what size."""

    cells: str = study.field(
        "all",
        help="all, which is every cell of the package and some variants; or names, with options or "
        "without, and path/to/file.py:factory, separated by commas.",
    )
    hidden_size: int = fields.hidden_size(32)
    input_size: int = fields.input_size(8)
    num_steps: int = fields.num_steps(100)
    needed_lag: int | None = fields.needed_lag()


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """Measures each cell; dimensions cell, run (a seed), lag."""
    import xarray

    is_all = config.cells == "all"
    specs = [*sorted(CELLS), *VARIANTS] if is_all else cells.specs(config.cells, "all")
    sizes = config.input_size, config.hidden_size
    made = {spec: cells.factory(spec)(*sizes) for spec in specs}  # before anything is measured
    parts = [
        once(f"cell={spec}", partial(_measure, config, spec, cell))
        for spec, cell in study.progress(made.items(), "cells")
    ]
    return xarray.concat(parts, dim="cell").assign_attrs(rates.needed(config))


def _measure(config: Config, spec: str, cell: "Cell") -> "xarray.Dataset":
    import xarray

    params = runs.initialise(cell, runs.keys(config))
    norms = runs.measure(partial(flow.log_norms, cell), params, runs.inputs(config))
    nats = {"units": "nats", "norm": "spectral"}
    return xarray.Dataset(
        {"log_norm": (("cell", "run", "lag"), norms[None], nats)},
        coords={
            "cell": [spec],
            "gated": ("cell", [cell.gates is not None]),
            "lag": curves.coordinates(config.num_steps)["lag"],
        },
    )


def num_cut(log_norms: "xarray.DataArray") -> int:
    """Counts the runs of one cell whose gradient is exactly zero at the longest lag."""
    return int(np.isneginf(log_norms.isel(lag=-1)).sum())


def _by_horizon(dataset: "xarray.Dataset") -> list[tuple[str, flow.Summary]]:
    """The cells with what their curves come to: the farthest horizon first, then the growth."""
    found = [
        (
            str(c),
            flow.summary(dataset.log_norm.sel(cell=c).values, needed_lag=rates.needed_lag(dataset)),
        )
        for c in dataset.cell.values
    ]
    return sorted(found, key=lambda item: (-item[1].horizon, -item[1].rate))


def figure(dataset: "xarray.Dataset") -> "Figure":
    """A panel for each cell, by horizon; the colour is the regime of its gradient."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    found = _by_horizon(dataset)
    columns = min(6, len(found))
    rows = -(-len(found) // columns)
    fig = Figure(figsize=(7.2, 1.0 + 0.85 * rows))
    panels = fig.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat
    for ax, (cell, one) in zip(panels, found, strict=False):
        _draw(ax, dataset.sel(cell=cell), cell, one)
    for ax in panels[len(found) :]:
        ax.set_axis_off()
    panels[0].set(xlim=(0, dataset.sizes["lag"] - 1), ylim=ORDERS, yticks=(-20, -10, 0))
    regimes = {one.regime for _, one in found}
    lines = [Line2D([], [], color=COLORS[name], label=name) for name in COLORS if name in regimes]
    fig.legend(handles=lines, loc="outside upper center", ncols=len(lines))
    fig.supxlabel(curves.LAG, fontsize=9)
    fig.supylabel(curves.NORM, fontsize=9)
    return fig


def _draw(ax: "Axes", data: "xarray.Dataset", cell: str, found: flow.Summary) -> None:
    curves.draw_norms(ax, data.lag, data.log_norm, color=COLORS[found.regime])
    ax.axhline(-3, color="black", lw=0.4)
    title = cell.replace("(", "\n(") if len(cell) > TITLE_WIDTH else cell
    ax.set_title(title, fontsize=6, pad=2)
    ax.tick_params(labelsize=6)
    corner = f"{found.horizon:.0f}" if np.isfinite(found.horizon) else ""
    if cut := num_cut(data.log_norm):
        corner = f"{corner}\n{cut} of {data.sizes['run']} cut".strip()
    ax.text(1, 1, corner, fontsize=6, ha="right", va="top", transform=ax.transAxes)


def at_last_lag(dataset: "xarray.Dataset") -> "xarray.DataArray":
    """The median over runs of the log10 norm at the longest lag, by cell."""
    return (dataset.log_norm.isel(lag=-1) / curves.NATS).median("run")


def summary(dataset: "xarray.Dataset") -> str:
    """The table of what each curve comes to, the farthest horizon first."""
    longest, last = int(dataset.lag[-1]), at_last_lag(dataset)
    rows = [
        {
            "cell": cell,
            **rates.row(found, longest),
            "factor per step": f"{np.exp(found.rate):.4f}",
            f"log10 norm at lag {longest}": f"{float(last.sel(cell=cell)):.1f}",
            "runs cut": f"{num_cut(dataset.log_norm.sel(cell=cell))} of {dataset.sizes['run']}",
        }
        for cell, found in _by_horizon(dataset)
    ]
    cells_cut = sum(num_cut(norms) > 0 for norms in dataset.log_norm)
    return (
        f"{study.table(rows)}\nThe gradient is exactly zero at lag {longest} in some runs of "
        f"{cells_cut} of {dataset.sizes['cell']} cells."
    )


def claims(dataset: "xarray.Dataset") -> list[study.Claim]:
    """How far apart the cells are, and whether gates decide it."""
    longest, last = int(dataset.lag[-1]), at_last_lag(dataset)
    finite = last.where(np.isfinite(last), drop=True)
    low, high = float(finite.min()), float(finite.max())
    return [
        study.claim(
            "orders-apart",
            f"Before any training, cells of one size differ by more than {APART:g} orders of "
            f"magnitude in ‖∂h_T/∂h_k‖ at lag {longest}.",
            high - low > APART,
            measured={"smallest log10 norm": low, "largest log10 norm": high},
            criterion=f"the medians of two cells that are not exactly zero are {APART:g} apart",
        ),
        *([_gates(finite)] if {True, False} <= set(finite.gated.values.tolist()) else []),
    ]


def _gates(last: "xarray.DataArray") -> study.Claim:
    gated, plain = (last.values[last.gated.values == gates] for gates in (True, False))
    overlap = gated.min() < plain.max() and plain.min() < gated.max()
    ends = ("smallest", "largest")
    return study.claim(
        "gates-do-not-decide",
        "Whether a cell has gates does not decide how far its gradient reaches.",
        bool(overlap),
        measured={
            f"{end} log10 norm {name}": float(pick(values))
            for name, values in (("with gates", gated), ("without", plain))
            for end, pick in zip(ends, (np.min, np.max), strict=True)
        },
        criterion="the ranges of the medians of the cells with gates and without overlap",
    )


EXPERIMENT = study.Experiment(
    name="cell_zoo",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    claims=claims,
    section="flow",
    order=4,
    gallery={"cell_zoo": study.Picture()},
    quick={"cells": "rnn,lstm,gru", "hidden_size": 8, "num_steps": 20, "num_seeds": 3},
    doc=__doc__,
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
