"""The parts of a report as plain values, which `gradflow.report.page` renders, and its numbers.

Nothing here knows what was measured: a report is sections with findings, panels and tables.
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

NATS = np.log(10)
"""Nats in one order of magnitude."""

Level = Literal["good", "warning", "bad", "unknown"]
"""How a finding is marked, by a word and a symbol beside the colour."""


class Finding(NamedTuple):
    """One result in a sentence.

    Attributes:
      topic: What it is about, one or two words: Reach, Credit, State, Readout, ...
      sentence: The result with its number, as a full sentence.
      level: How it is marked.
    """

    topic: str
    sentence: str
    level: Level = "unknown"


class Line(NamedTuple):
    """A curve, with a band where it is the median of several.

    Attributes:
      label: Its name in the legend.
      x: Its places.
      y: Its values; NaN where there is none, which is drawn as a gap.
      low: Lower edge of the band.
      high: Upper edge of the band.
    """

    label: str
    x: Float[np.ndarray, " n"]
    y: Float[np.ndarray, " n"]
    low: Float[np.ndarray, " n"] | None = None
    high: Float[np.ndarray, " n"] | None = None


class Image(NamedTuple):
    """Values on a grid, drawn as colours.

    Attributes:
      x: Places of the columns.
      y: Places of the rows.
      values: The values; NaN where there is none.
      unit: What the colours mean.
    """

    x: Float[np.ndarray, " columns"]
    y: Float[np.ndarray, " rows"]
    values: Float[np.ndarray, "rows columns"]
    unit: str


class Panel(NamedTuple):
    """One plot.

    Attributes:
      title: What is drawn.
      caption: How it is read, in one or two sentences.
      x_label: Name and unit of the horizontal axis.
      y_label: Name and unit of the vertical axis.
      lines: Curves.
      points: Sets of unconnected points, drawn with equal axes and the unit circle.
      image: A map in place of curves.
      marks: Vertical lines at places of x, by their label.
      levels: Horizontal lines at places of y, by their label.
    """

    title: str
    caption: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...] = ()
    points: tuple[Line, ...] = ()
    image: Image | None = None
    marks: tuple[tuple[str, float], ...] = ()
    levels: tuple[tuple[str, float], ...] = ()


class Table(NamedTuple):
    """A table of words and numbers as text.

    Attributes:
      title: What is in it.
      caption: How it is read.
      columns: The headings.
      rows: The cells of each row, one for each heading.
      levels: A mark for each row, or none.
    """

    title: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    levels: tuple[Level, ...] = ()


class Section(NamedTuple):
    """What is reported of one layer in one direction.

    Attributes:
      name: The layer's name.
      summary: What was found, in one sentence.
      level: How the layer as a whole is marked.
      facts: Short facts by name: the cell, sizes, direction, whether it is verified.
      findings: Reach, credit, state and readout first, which are shown on one screen.
      tables: Advice first.
      panels: The plots.
    """

    name: str
    summary: str
    level: Level
    facts: tuple[tuple[str, str], ...]
    findings: tuple[Finding, ...]
    tables: tuple[Table, ...] = ()
    panels: tuple[Panel, ...] = ()


class Report(NamedTuple):
    """A whole page.

    Attributes:
      title: What was diagnosed.
      lead: The most important result, in a sentence or two.
      sections: One for each layer and direction.
      facts: What was measured on what: hash, versions, command, precision.
      notes: Sentences that qualify the whole, such as layers that were not imported.
    """

    title: str
    lead: str
    sections: tuple[Section, ...]
    facts: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()


def gaps(values: np.ndarray) -> np.ndarray:
    """Returns values with NaN, which is drawn as a gap, for all that are not finite."""
    return np.where(np.isfinite(values), values, np.nan)


def number(value: float) -> str:
    """Writes a number with two digits: 0.13, 36, 1.2e-17."""
    if not np.isfinite(value):
        return "not finite" if np.isnan(value) else "infinite"
    if value == 0:
        return "0"
    return f"{value:.2g}" if 1e-2 <= abs(value) < 100 else _scientific(value)


def _scientific(value: float) -> str:
    if 100 <= abs(value) < 10_000:
        return f"{value:.0f}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def magnitude(log_value: float) -> str:
    """Writes exp(log_value), also where it is beyond the range of floats."""
    if not np.isfinite(log_value):
        return "0" if log_value == -np.inf else number(log_value)
    if abs(log_value) < 600:
        return number(float(np.exp(log_value)))
    return f"1e{log_value / np.log(10):.0f}"


def percent(share: float) -> str:
    """Writes a share in percent."""
    return f"{100 * share:.0f} %"


def steps_text(steps: float, longest: int) -> str:
    """Writes a number of steps, or that it lies beyond what was measured."""
    return f"{steps:.0f}" if np.isfinite(steps) else f"> {longest}"
