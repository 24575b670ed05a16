"""How far the gradient of every cell reaches at birth, a small panel a cell.

For each cell of the field, as its paper starts it and on the same gaussian inputs:
log10 ‖∂h_T/∂h_k‖ against the lag T - k, all on one scale, the farthest horizon first. The
horizon is the first lag at which the median norm is 1e-3 or less. The claim: before any
training, cells of one size differ by tens of decades at lag 100, and what sets them apart is how
their equations and initial weights were made, not whether they have gates.

Source: the paper of each cell, named in its docstring; Hochreiter 1991 for the norm.

    python experiments/cell_zoo.py
    python experiments/cell_zoo.py --cells='lstm,gru,path/to/mine.py:my_cell' --hidden_size=64

Takes about two minutes on two cores at the defaults, nearly all of it to compile.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import jax
import numpy as np

from gradflow import flow, study
from gradflow.cells import CELLS, resolve
from gradflow.spec import split_specs
from gradflow.structure import check_structure
from gradflow.tasks.inputs import make_inputs

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
    "undefined": "#000000",
}
DECADES = (-20, 5)
"""The scale of every panel."""

TITLE_WIDTH = 22  # characters that fit over a panel


@dataclass(frozen=True)
class Config(study.Config):
    """Which cells, of what size."""

    cells: str = study.field(
        "all",
        help="all, which is every cell of the package and some variants; or names, with options or "
        "without, and path/to/file.py:factory, separated by commas.",
    )
    hidden_size: int = study.field(32, help="Hidden units.", positive=True)
    input_size: int = study.field(8, help="Channels of gaussian inputs.")
    num_steps: int = study.field(100, help="Steps T, and so the longest lag.", positive=True)


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """Measures each cell; dimensions cell, run (a seed), lag."""
    import xarray

    specs = [*sorted(CELLS), *VARIANTS] if config.cells == "all" else split_specs(config.cells)
    if not specs:
        raise ValueError(f"names of cells are expected, got {config.cells!r}; try all")
    made = {spec: _make(spec, config) for spec in specs}  # before anything is measured
    parts = [
        once(f"cell={spec}", partial(_measure, config, spec, cell))
        for spec, cell in study.progress(made.items(), "cells")
    ]
    return xarray.concat(parts, dim="cell")


def _make(spec: str, config: Config) -> "Cell":
    factory = resolve(spec)
    if ":" in spec:  # the package's own cells keep the contract by its tests
        check_structure(factory)
    return factory(config.input_size, config.hidden_size)


def _measure(config: Config, spec: str, cell: "Cell") -> "xarray.Dataset":
    import xarray

    k_params, k_inputs = jax.random.split(jax.random.key(config.seed))
    inputs = make_inputs(
        "gaussian",
        k_inputs,
        num_sequences=config.num_seeds,
        num_steps=config.num_steps,
        input_size=config.input_size,
    )
    measure = flow.over_runs(lambda key, x: flow.log_norms(cell, cell.init(key), x))
    norms = jax.jit(measure)(jax.random.split(k_params, config.num_seeds), inputs)
    nats = {"units": "nats", "norm": "spectral"}
    return xarray.Dataset(
        {"log_norm": (("cell", "run", "lag"), np.asarray(norms)[None], nats)},
        coords={
            "cell": [spec],
            "lag": ("lag", np.arange(config.num_steps + 1), {"units": "steps"}),
        },
    )


def _by_horizon(dataset: "xarray.Dataset") -> list[tuple[str, flow.Summary]]:
    """The cells with what their curves come to: the farthest horizon first, then the growth."""
    found = [
        (str(c), flow.summary(dataset.log_norm.sel(cell=c).values)) for c in dataset.cell.values
    ]
    return sorted(found, key=lambda item: (-item[1].horizon, -item[1].rate))


def figure(dataset: "xarray.Dataset") -> "Figure":
    """A panel a cell, by horizon; the colour says which of the three fates the gradient has."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    cells = _by_horizon(dataset)
    columns = min(6, len(cells))
    rows = -(-len(cells) // columns)
    fig = Figure(figsize=(7.2, 1.0 + 0.85 * rows))
    panels = fig.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat
    for ax, (cell, found) in zip(panels, cells, strict=False):
        _draw(ax, dataset.sel(cell=cell), cell, found)
    for ax in panels[len(cells) :]:
        ax.set_axis_off()
    panels[0].set(xlim=(0, dataset.sizes["lag"] - 1), ylim=DECADES, yticks=(-20, -10, 0))
    words = {found.word for _, found in cells}
    lines = [Line2D([], [], color=COLORS[word], label=word) for word in COLORS if word in words]
    fig.legend(handles=lines, loc="outside upper center", ncols=len(lines))
    fig.supxlabel("lag T − k (steps)", fontsize=9)
    fig.supylabel(r"$\log_{10}\,\|\partial h_T/\partial h_k\|$", fontsize=9)
    return fig


def _draw(ax: "Axes", data: "xarray.Dataset", cell: str, found: flow.Summary) -> None:
    decades = data.log_norm / np.log(10)
    study.figure.band(ax, data.lag, decades, "run", color=COLORS[found.word])
    ax.axhline(-3, color="black", lw=0.4)
    title = cell.replace("(", "\n(") if len(cell) > TITLE_WIDTH else cell
    ax.set_title(title, fontsize=6, pad=2)
    ax.tick_params(labelsize=6)
    if np.isfinite(found.horizon):
        ax.annotate(
            f"{found.horizon:.0f}",
            (1, 1),
            xycoords="axes fraction",
            fontsize=6,
            ha="right",
            va="top",
        )


def summary(dataset: "xarray.Dataset") -> str:
    """The table of what each curve comes to, the farthest horizon first."""
    lag = int(dataset.lag[-1])
    last = (dataset.log_norm.isel(lag=-1) / np.log(10)).median("run")
    return study.table(
        [
            {
                "cell": cell,
                "horizon": f"{found.horizon:.0f}" if np.isfinite(found.horizon) else f"> {lag}",
                "decay per step": f"{np.exp(found.rate):.4f}",
                f"log10 norm at lag {lag}": f"{float(last.sel(cell=cell)):.1f}",
                "word": found.word,
            }
            for cell, found in _by_horizon(dataset)
        ]
    )


EXPERIMENT = study.Experiment(
    name="cell_zoo",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    section="flow",
    order=4,
    gallery={"cell_zoo": study.Picture()},
    quick={"cells": "rnn,lstm,gru", "hidden_size": 8, "num_steps": 20, "num_seeds": 3},
    doc=__doc__,
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
