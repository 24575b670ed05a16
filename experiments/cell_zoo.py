"""How far the gradient of every cell reaches at initialisation, by family.

For each cell of the field, initialised as in its paper and on the same gaussian inputs: the
spectral norm ‖∂s_T/∂s_k‖ of the whole carry s against the lag T - k, reduced to two numbers. The
factor per step is that of the line through its logarithm, with its 95 % interval over seeds. The
horizon is the first lag at which the norm is 1e-3 or less: the median over the seeds, and 10 to
90 % of them. The carry is the state that the next step reads: an LSTM is not judged without its
cell state, nor a cell whose h is only read out by that h. A run is cut if its gradient is exactly
zero at the longest lag. The claims: before any training, cells of one size differ by more than ten
orders of magnitude at lag 100; and gates do not decide it, for gated cells lie on either side of
the cells without.

Source: the paper of each cell, named in its docstring; Hochreiter 1991 for the norm.

    python experiments/cell_zoo.py
    python experiments/cell_zoo.py --cells='lstm,gru,path/to/mine.py:my_cell' --hidden_size=64

Takes six minutes on two idle cores at the defaults, by estimate, nearly all of it to compile.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray
from _kit import cells, curves, fields, rates, runs

from gradflow import Cell, flow, study
from gradflow.cells import CELLS
from gradflow.flow.summary import horizons
from gradflow.spec import parse_spec
from gradflow.study.figure import Axes, Figure

FAMILIES = {
    "no gates": "rnn indrnn clockwork scrn",
    "orthogonal and unitary": "orthogonal unitary schur",
    "differential equations": "antisymmetric lipschitz oscillators lem",
    "LSTM": "lstm lstm_relatives janet cfn additive",
    "GRU": "gru ligru minimal star highway fast bistable",
    "normalised": "layer_norm",
    "convolutional": "convolutional",
    "linear in the state": "lru mingru state_space selective griffin",
    "matrix states": "linear_attention delta_rule rwkv mlstm slstm ttt",
    "made of other cells": "combinators",
}
"""The modules of `gradflow.cells` whose cells are of one family."""

OTHER = "other"
"""The family of a cell that is in none of these, such as one of the user's own."""

AS_USED = {
    **{name: f"{name}(height=2, width=2)" for name in ("conv_lstm", "conv_gru")},
    **{name: f"{name}(num_heads=4)" for name in ("mlstm", "ttt_linear")},
}
"""Cells that are measured with these options: a single pixel is no image, and one head of all units
is a single block of a thousand entries."""

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

APART = 10.0
"""Orders of magnitude by which the cells are claimed to differ."""

LABEL_WIDTH = 24  # characters of a cell's name that fit beside a column


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


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Measures each cell; dimensions cell, run (a seed), lag."""
    is_all = config.cells == "all"
    every = [*(AS_USED.get(name, name) for name in sorted(CELLS)), *VARIANTS]
    specs = every if is_all else cells.specs(config.cells, "all")
    sizes = config.input_size, config.hidden_size
    made = {spec: cells.factory(spec)(*sizes) for spec in specs}  # before anything is measured
    parts = [
        once(f"cell={spec}", partial(_measure, config, spec, cell))
        for spec, cell in study.progress(made.items(), "cells")
    ]
    return xarray.concat(parts, dim="cell").assign_attrs(rates.needed(config))


def _measure(config: Config, spec: str, cell: Cell) -> xarray.Dataset:
    params = runs.initialise(cell, runs.keys(config))
    inputs = runs.inputs(config)
    one = jax.tree.map(lambda leaf: leaf[0], (params, inputs))
    state = flow.default_block(cell, *one)
    # The whole memory: the carry, without a read-out that no step reads.
    block = "carry" if state == "h" else state
    norms = runs.measure(partial(flow.log_norms, cell, source=block, target=block), params, inputs)
    nats = {"units": "nats", "norm": "spectral"}
    sizes = flow.block_sizes(cell, *one, block=block)
    return xarray.Dataset(
        {"log_norm": (("cell", "run", "lag"), norms[None], nats)},
        coords={
            "cell": [spec],
            "gated": ("cell", [cell.gates is not None]),
            "state": ("cell", [block]),
            "blocks": ("cell", [" + ".join(f"{n} of {size}" for size, n in sizes.items())]),
            "lag": curves.coordinates(config.num_steps)["lag"],
        },
    )


def num_cut(log_norms: xarray.DataArray) -> int:
    """Counts the runs of one cell whose gradient is exactly zero at the longest lag."""
    return int(np.isneginf(log_norms.isel(lag=-1)).sum())


def family(spec: str) -> str:
    """Finds the family of a cell by the module of its factory."""
    factory = CELLS.get(parse_spec(spec)[0])
    module = "" if factory is None else factory.__module__.rpartition(".")[2]
    return next((name for name, found in FAMILIES.items() if module in found.split()), OTHER)


class Row(NamedTuple):
    """What the curves of one cell come to.

    Attributes:
      cell: Its spec.
      family: Its family.
      found: The summary of its curves.
      horizons: The horizon of each run, infinite where it lies beyond the longest lag.
      num_cut: In how many runs the gradient is exactly zero at the longest lag.
    """

    cell: str
    family: str
    found: flow.Summary
    horizons: np.ndarray
    num_cut: int


def by_family(dataset: xarray.Dataset) -> dict[str, list[Row]]:
    """Sums the cells up, by family; within one the farthest horizon first, then the growth."""
    groups: dict[str, list[Row]] = {name: [] for name in (*FAMILIES, OTHER)}
    for spec in map(str, dataset.cell.values):
        norms = dataset.log_norm.sel(cell=spec)
        found = flow.summary(norms.values, needed_lag=rates.needed_lag(dataset))
        row = Row(spec, family(spec), found, horizons(norms.values), num_cut(norms))
        groups[row.family].append(row)
    return {
        name: sorted(rows, key=lambda row: (-row.found.horizon, -row.found.rate))
        for name, rows in groups.items()
        if rows
    }


def figure(dataset: xarray.Dataset) -> Figure:
    """A dot for each cell, by family: its factor per step and its horizon."""
    groups = by_family(dataset)
    places, labels = _places(groups)
    fig = study.figure.empty(3.5, 1.2 + 0.105 * places[-1])
    left, right = fig.subplots(1, 2, sharey=True)
    longest = int(dataset.lag[-1])
    rows = {place: row for place, row in zip(places, labels, strict=True) if isinstance(row, Row)}
    for place, row in rows.items():
        _draw_factor(left, place, row)
        _draw_horizon(right, place, row, longest)
    _scale_factor(left)
    _scale_horizon(right, longest)
    left.set_yticks(places, [_label(row) for row in labels])
    left.set_ylim(places[-1] + 0.8, -0.8)
    for text, row in zip(left.get_yticklabels(), labels, strict=True):
        text.set_fontweight("normal" if isinstance(row, Row) else "bold")
    _legend(fig, list(rows.values()))
    return fig


def _places(groups: dict[str, list[Row]]) -> tuple[list[float], list[Row | str]]:
    """Places the families and their cells below each other, with a gap above each family."""
    places, labels, place = [], [], -0.6
    for name, rows in groups.items():
        place += 0.6
        for label in (name, *rows):
            places.append(place)
            labels.append(label)
            place += 1
    return places, labels


def _label(row: Row | str) -> str:
    if isinstance(row, str):
        return row
    plain = {spec: name for name, spec in AS_USED.items()}
    text = plain.get(row.cell, row.cell).replace("'", "").replace(" ", "")
    return text if len(text) <= LABEL_WIDTH else f"{text[: LABEL_WIDTH - 1]}…"


def _draw_factor(ax: Axes, place: float, row: Row) -> None:
    value, low, high = row.found.decay
    look = _look(row)
    ax.plot([low, high], [place, place], color=look["color"], lw=1)
    ax.plot([value], [place], **look)


def _draw_horizon(ax: Axes, place: float, row: Row, longest: int) -> None:
    """Draws a horizon beyond the longest lag at twice that lag, as an arrow."""
    ends = np.quantile(np.minimum(row.horizons, 2 * longest), [0.1, 0.9], method="nearest")
    look = _look(row)
    ax.plot(ends, [place, place], color=look["color"], lw=1)
    beyond: dict[str, Any] = {} if np.isfinite(row.found.horizon) else {"marker": ">"}
    ax.plot([min(row.found.horizon, 2 * longest)], [place], **look | beyond)


def _look(row: Row) -> dict[str, Any]:
    return {"color": COLORS[row.found.regime], "marker": "X" if row.num_cut else "o"}


def _scale_factor(ax: Axes) -> None:
    ax.axvline(1, color="black", lw=0.4, zorder=0)
    _axis(ax, "factor per step")


def _scale_horizon(ax: Axes, longest: int) -> None:
    ax.set_xscale("log")
    ax.set_xlim(0.9, 2.6 * longest)
    ticks = [t for t in (1, 10, 100, 1000, 10000) if t <= longest]
    ax.set_xticks(ticks, [f"{t}" for t in ticks])
    ax.minorticks_off()
    ax.axvspan(longest, 2.6 * longest, color="#f0f0f0", lw=0, zorder=0)
    _axis(ax, "horizon (steps)")


def _axis(ax: Axes, name: str) -> None:
    """Names the axis, whose ticks are above as well, because the figure is tall."""
    ax.set_xlabel(name, fontsize=7)
    ax.grid(visible=False, axis="y")
    ax.tick_params(axis="x", labelsize=6, top=True, labeltop=True)
    ax.tick_params(axis="y", labelsize=6, length=0)
    ax.spines["left"].set_visible(False)
    ax.spines["top"].set_visible(True)


def _legend(fig: Figure, rows: list[Row]) -> None:
    regimes = {row.found.regime for row in rows}
    marks = {name: ("o", color) for name, color in COLORS.items() if name in regimes}
    if any(np.isinf(row.found.horizon) for row in rows):
        marks["beyond the longest lag"] = (">", "#666666")
    if any(row.num_cut for row in rows):
        marks["exactly 0 in some runs"] = ("X", "#666666")
    handles = [
        study.figure.handle(color=color, marker=marker, ls="none", label=name)
        for name, (marker, color) in marks.items()
    ]
    look = {"fontsize": 6, "handlelength": 1, "columnspacing": 1, "borderaxespad": 0.2}
    fig.legend(handles=handles, loc="outside upper center", ncols=3, **look)


def at_last_lag(dataset: xarray.Dataset) -> xarray.DataArray:
    """The median over runs of the log10 norm at the longest lag, by cell."""
    return (dataset.log_norm.isel(lag=-1) / curves.NATS).median("run")


def summary(dataset: xarray.Dataset) -> str:
    """The table of what the curves of each cell come to, in the order of the figure."""
    longest, last = int(dataset.lag[-1]), at_last_lag(dataset)
    rows = [
        {
            "family": row.family,
            "cell": row.cell,
            "state": str(dataset.state.sel(cell=row.cell).values),
            "blocks": str(dataset.blocks.sel(cell=row.cell).values),
            **rates.row(row.found, longest),
            f"log10 norm at lag {longest}": f"{float(last.sel(cell=row.cell)):.1f}",
            "runs cut": f"{row.num_cut} of {dataset.sizes['run']}",
        }
        for group in by_family(dataset).values()
        for row in group
    ]
    cells_cut = sum(num_cut(norms) > 0 for norms in dataset.log_norm)
    return (
        f"{study.table(rows)}\nThe gradient is exactly zero at lag {longest} in some runs of "
        f"{cells_cut} of {dataset.sizes['cell']} cells."
    )


def claims(dataset: xarray.Dataset) -> list[study.Claim]:
    """How far apart the cells are, and whether gates decide it."""
    longest, last = int(dataset.lag[-1]), at_last_lag(dataset)
    finite = last.where(np.isfinite(last), drop=True)
    low, high = float(finite.min()), float(finite.max())
    return [
        study.claim(
            "orders-apart",
            f"Before any training, cells of one size differ by more than {APART:g} orders of "
            f"magnitude in ‖∂s_T/∂s_k‖, the norm of the whole carry, at lag {longest}.",
            high - low > APART,
            measured={"smallest log10 norm": low, "largest log10 norm": high},
            criterion=f"the medians of two cells that are not exactly zero are {APART:g} apart",
        ),
        *([_gates(finite)] if {True, False} <= set(finite.gated.values.tolist()) else []),
    ]


def _gates(last: xarray.DataArray) -> study.Claim:
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
