"""Panels of a report in matplotlib: one row for each layer, for papers and terminals."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gradflow.report.parts import Panel, Section
from gradflow.study.figure import SERIES_STYLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = ("Norm against lag", "Credit by step", "Gates over time", "Units")
"""Titles of the panels that are drawn; a layer without gates has its units instead."""

NUM_PANELS = 3

MOST_LAYERS = 6


def draw_sections(sections: Sequence[Section]) -> "Figure":
    """Draws the most telling panels of each layer; of many layers the first six."""
    from matplotlib.figure import Figure

    shown = sections[:MOST_LAYERS]
    fig = Figure(figsize=(7.4, 0.3 + 2.1 * len(shown)))
    rows = fig.subfigures(len(shown), 1, squeeze=False)[:, 0]
    for row, section in zip(rows, shown, strict=True):
        row.suptitle(f"{section.name}: {dict(section.facts).get('cell', '')}", fontsize=9)
        by_title = {panel.title: panel for panel in section.panels}
        panels = [by_title[title] for title in COLUMNS if title in by_title][:NUM_PANELS]
        for ax, panel in zip(row.subplots(1, NUM_PANELS), panels, strict=True):
            draw_panel(ax, panel)
    return fig


def draw_panel(ax: "Axes", panel: Panel) -> None:
    """Draws the curves of a panel, with its marks and levels."""
    for line, style in zip(panel.lines, _styles(len(panel.lines)), strict=True):
        (drawn,) = ax.plot(line.x, line.y, label=line.label, **style)
        if line.low is not None and line.high is not None:
            ax.fill_between(line.x, line.low, line.high, color=drawn.get_color(), alpha=0.2, lw=0)
    for _, place in panel.levels:
        ax.axhline(place, color="0.5", lw=0.6, ls=":")
    for _, place in panel.marks:
        ax.axvline(place, color="0.5", lw=0.6, ls="--")
    ax.set_title(panel.title, fontsize=8)
    ax.set_xlabel(panel.x_label, fontsize=8)
    ax.set_ylabel(panel.y_label, fontsize=8)
    ax.margins(x=0)
    if len(panel.lines) > 1:
        ax.legend(fontsize=7)


def _styles(number: int) -> list[dict]:
    keys = ("color", "linestyle")
    return [{k: SERIES_STYLES[i % len(SERIES_STYLES)][k] for k in keys} for i in np.arange(number)]
