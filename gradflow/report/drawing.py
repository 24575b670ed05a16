"""Figures of matplotlib: of datasets of `gradflow.measure`, and of the panels of a report."""

import itertools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gradflow.flow import CATALOGUE
from gradflow.flow.measurement import Variable
from gradflow.report.parts import NATS, Panel, Section
from gradflow.study.figure import band, render, series_style

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINESTYLES = ("-", "--", "-.", ":", (0, (3, 1, 1, 1, 1, 1)), (0, (8, 2)))

AXES = {
    "lag": "lag T − k",
    "input_lag": "lag T − k",
    "earlier": "step k",
    "later": "step t",
    "step": "step t",
}
"""The names of the axes of dimensions; others keep their own."""

COLUMNS = 3

SECTION_PANELS = ("Norm against lag", "Credit by step", "Gates over time", "Units")
"""Titles of the panels that are drawn; a layer without gates has its units instead."""

NUM_PANELS = 3

MOST_LAYERS = 6


def measured(dataset: "xarray.Dataset") -> list[str]:
    """Returns the names of the measurements in a dataset, in the order of the catalogue."""
    return [
        name
        for name, entry in CATALOGUE.items()
        if all(variable.name in dataset for variable in entry.variables)
    ]


def draw_page(dataset: "xarray.Dataset", names: Sequence[str], title: str) -> "Figure":
    """Draws a panel for each measurement: the median and the 10-90 % band over runs.

    Args:
      dataset: What was measured, with the dimension ``run`` or without.
      names: Names of measurements in it.
      title: The title of the page.
    """
    from matplotlib.figure import Figure

    class Page(Figure):
        """A figure that a notebook shows without `matplotlib.pyplot`."""

        def _repr_png_(self) -> bytes:
            return render(self, "png", {"Title": title})

    if "run" not in dataset.dims:
        dataset = dataset.expand_dims("run")
    columns = min(COLUMNS, len(names))
    rows = -(-len(names) // columns)
    fig = Page(figsize=(0.2 + 2.4 * columns, 0.4 + 2.15 * rows))
    panels = fig.subplots(rows, columns, squeeze=False).flat
    for ax, name in zip(panels, names, strict=False):
        _draw(ax, dataset, name)
    for ax in panels[len(names) :]:
        ax.set_axis_off()
    fig.suptitle(title, fontsize=10)
    return fig


def title_of(name: str) -> str:
    """Writes the name of a measurement for a panel's title; its logarithm stands on the axis."""
    return name.removeprefix("log_").replace("_", " ").capitalize()


def _draw(ax: "Axes", dataset: "xarray.Dataset", name: str) -> None:
    entry = CATALOGUE[name]
    first, *rest = entry.variables
    dims = list(first.dims)
    if entry.kind == "map":
        _draw_map(ax, _whole(dataset[first.name], first))
    elif entry.kind == "matrices":
        ax.text(0.5, 0.5, "not drawn by itself", ha="center", transform=ax.transAxes)
    elif len(dims) > 1 and not first.by_leaf:
        _draw_family(ax, _shown(dataset[first.name]))
    else:
        alike = [v for v in rest if v.dims[0] == dims[0] and v.units == first.units]
        lines = [_lines(dataset[v.name], v) for v in (first, *alike)]
        _draw_lines(ax, {label: line for part in lines for label, line in part.items()})
    unit = {"nats": r"$\log_{10}$", "1": "dimensionless"}.get(first.units, first.units)
    ax.set_title(title_of(name))
    vertical = AXES.get(dims[0], dims[0]) if entry.kind == "map" else unit
    horizontal = dims[1] if entry.kind == "map" else dims[0]
    ax.set_ylabel(vertical, fontsize=8)
    ax.set_xlabel(AXES.get(horizontal, horizontal), fontsize=8)


def _shown(array: "xarray.DataArray") -> "xarray.DataArray":
    """What an axis shows: log10 of what is recorded as a natural logarithm."""
    return array / NATS if array.attrs["units"] == "nats" else array


def _whole(array: "xarray.DataArray", variable: Variable) -> "xarray.DataArray":
    """What a map shows: of a pytree of log norms, the norm of all leaves together."""
    if variable.by_leaf:
        array = 0.5 * _log_sum(2 * array, variable.dims[-1])
        array.attrs["units"] = variable.units
    return _shown(array)


def _lines(array: "xarray.DataArray", variable: Variable) -> dict[str, "xarray.DataArray"]:
    """The lines of a variable, (run, x) by label; of a pytree one for each name of a leaf."""
    if not variable.by_leaf:
        return {variable.name.rpartition("_")[2]: _shown(array)}
    leaf = variable.dims[-1]
    values = array.sum(variable.dims[1:-1], keep_attrs=True)  # the sides of a gate's saturation
    labels = [str(name).rpartition(".")[2] for name in values[leaf].values]
    parts = {label: values[..., np.equal(labels, label)] for label in dict.fromkeys(labels)}
    if variable.units == "nats":  # the log norm of all gates together
        parts = {k: 0.5 * _log_sum(2 * v, leaf) for k, v in parts.items()}
        return {k: v / NATS for k, v in parts.items()}
    return {k: v.mean(leaf) for k, v in parts.items()}


def _log_sum(values: "xarray.DataArray", dim: str) -> "xarray.DataArray":
    with np.errstate(invalid="ignore"):  # NaN where there is no pair, above a map's diagonal
        return values.reduce(np.logaddexp.reduce, dim)


def _draw_lines(ax: "Axes", lines: dict[str, "xarray.DataArray"]) -> None:
    looks = itertools.cycle(zip(COLORS, LINESTYLES, strict=True))
    for (label, values), (color, line) in zip(lines.items(), looks, strict=False):
        x = values[values.dims[-1]]
        band(ax, x, values, "run", label=label, color=color, linestyle=line)
    if len(lines) > 1:
        low, high = ax.get_ylim()
        ax.set_ylim(low, high + 0.25 * (high - low))  # room for the legend
        columns = min(4, len(lines))
        look: Any = {"fontsize": 7, "handlelength": 1.6, "columnspacing": 0.8}
        ax.legend(loc="upper center", ncols=columns, **look)
    ax.margins(x=0)


def _draw_family(ax: "Axes", array: "xarray.DataArray") -> None:
    """Draws the median of each entry of the last dimension as a thin line."""
    values = array.median("run")
    values = values.where(np.isfinite(values))
    ax.plot(values[values.dims[0]], values, color=COLORS[0], lw=0.7)
    ax.margins(x=0)


def _draw_map(ax: "Axes", array: "xarray.DataArray") -> None:
    values = array.median("run").values
    image = ax.imshow(np.where(np.isfinite(values), values, np.nan), origin="lower")
    ax.figure.colorbar(image, ax=ax, shrink=0.8)
    ax.grid(False)


def draw_sections(sections: Sequence[Section]) -> "Figure":
    """Draws the most telling panels of each layer; of many layers the first six."""
    from matplotlib.figure import Figure

    shown = sections[:MOST_LAYERS]
    fig = Figure(figsize=(7.4, 0.3 + 2.1 * len(shown)))
    rows = fig.subfigures(len(shown), 1, squeeze=False)[:, 0]
    for row, section in zip(rows, shown, strict=True):
        cell = dict(section.facts).get("cell", section.name)
        title = section.name if cell == section.name else f"{section.name}: {cell}"
        row.suptitle(title, fontsize=9)
        by_title = {panel.title: panel for panel in section.panels}
        panels = [by_title[title] for title in SECTION_PANELS if title in by_title][:NUM_PANELS]
        for ax, panel in zip(row.subplots(1, NUM_PANELS), panels, strict=True):
            _draw_panel(ax, panel)
    return fig


def _draw_panel(ax: "Axes", panel: Panel) -> None:
    """Draws the curves of a panel, with its marks and levels."""
    for number, line in enumerate(panel.lines):
        look = series_style(number)
        look.pop("marker")
        (drawn,) = ax.plot(line.x, line.y, label=line.label, **look)
        if line.low is not None and line.high is not None:
            ax.fill_between(line.x, line.low, line.high, color=drawn.get_color(), alpha=0.2, lw=0)
    for _, place in panel.levels:
        ax.axhline(place, color="0.5", lw=0.6, ls=":")
    for _, place in panel.marks:
        ax.axvline(place, color="0.5", lw=0.6, ls="--")
    ax.set_title(panel.title, fontsize=8)
    ax.set_xlabel(panel.x_label, fontsize=8)
    ax.set_ylabel(_mathtext(panel.y_label), fontsize=8)
    ax.margins(x=0)
    if len(panel.lines) > 1:
        ax.legend(fontsize=7)


def _mathtext(label: str) -> str:
    """Sets the indices of a label, such as that of h_T, below the line."""
    return re.sub(r"(\w)_(\w)", r"$\1_\2$", label).replace("log10", r"$\log_{10}$")
