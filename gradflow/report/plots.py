"""Panels of a report as figures of plotly, in plain JSON values.

A figure has neither colours nor a size: the page gives it those of the reader's screen.
"""

import html
import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gradflow.report.limits import Limits, Reference, limits_of, references, widened
from gradflow.report.parts import Image, Line, Panel

DIGITS = 5
"""Significant digits of a number in a figure, which is finer than a screen."""

MAX_PLAIN = 20
"""Curves with at most this many points have their points marked, too."""


def figure(panel: Panel) -> dict[str, Any]:
    """Describes a panel as a plotly figure with ``data`` and ``layout``.

    Values that are not finite become ``None``, which plotly draws as a gap. A trace has its number
    among the curves and its label in ``meta``, and the edges of its band in ``customdata``. Lines
    of reference are shapes with an annotation of the same name: ``mark`` or ``level``.
    """
    data = [_curve(line, number) for number, line in enumerate(panel.lines)]
    data += [_trace(cloud, number, "markers") for number, cloud in enumerate(panel.points)]
    if panel.image is not None:
        data = [_map(panel.image)]
    x_limits, y_limits = limits_of(panel)
    marks, levels = references(panel.marks, x_limits, 0.25), references(panel.levels, y_limits, 1.0)
    x_limits, y_limits = widened(x_limits, marks), widened(y_limits, levels)
    drawn = [_reference("mark", mark, x_limits) for mark in marks]
    drawn += [_reference("level", level, y_limits) for level in levels]
    layout: dict[str, Any] = {
        "xaxis": _axis(panel.x_label, x_limits),
        "yaxis": _axis(panel.y_label, y_limits),
        "shapes": [shape for shapes, _ in drawn for shape in shapes],
        "annotations": [note for _, notes in drawn for note in notes],
        "meta": {"kind": kind(panel)},
    }
    if panel.points:
        layout["yaxis"] |= {"scaleanchor": "x", "scaleratio": 1}
        layout["shapes"].append(_UNIT_CIRCLE)
    if x_limits is None or y_limits is None:
        layout["annotations"].append(_NOTHING)
    return {"data": data, "layout": layout}


def kind(panel: Panel) -> str:
    """Names what a panel shows: ``map``, ``points`` or ``lines``."""
    if panel.image is not None:
        return "map"
    return "points" if panel.points else "lines"


def describe(panel: Panel) -> str:
    """Describes a panel in words, for readers who do not see it."""
    axes = f"{panel.y_label} against {panel.x_label}"
    if panel.image is not None:
        parts = [f"Map of {panel.image.unit}, {axes}: {_extent(panel.image.values)}"]
    elif panel.points:
        parts = [f"Points in the plane, {axes}, with the unit circle"]
        parts += [f"{cloud.label}: {_count(cloud)} points" for cloud in panel.points]
    else:
        parts = [f"Curves of {axes}"]
        parts += [f"{line.label}: {_course(line)}" for line in panel.lines]
    parts += [f"{label} at {place:.4g}" for label, place in (*panel.marks, *panel.levels)]
    return f"{panel.title}. {'; '.join(parts)}."


def numbers(values: ArrayLike) -> list[Any]:
    """Rounds the numbers of an array to JSON values; what is not finite becomes ``None``."""
    found = np.asarray(values, np.float64)
    if found.ndim > 1:
        return [numbers(row) for row in found]
    return [_number(value) for value in found.tolist()]


def _number(value: float) -> float | int | None:
    if not math.isfinite(value):
        return None
    if value.is_integer() and abs(value) < 1e15:
        return int(value)
    return float(f"{value:.{DIGITS}g}")


def _text(words: str) -> str:
    """Escapes words for plotly, which reads tags and entities in them."""
    return html.escape(words, quote=False)


def _curve(line: Line, number: int) -> dict[str, Any]:
    curve = _trace(line, number, "lines+markers" if _has_lone_points(line.y) else "lines")
    if line.low is not None and line.high is not None:
        curve["customdata"] = numbers(np.stack([line.low, line.high], axis=1))
    return curve


def _trace(line: Line, number: int, mode: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": mode,
        "name": _text(line.label),
        "x": numbers(line.x),
        "y": numbers(line.y),
        "meta": {"label": line.label, "series": number},
    }


def _has_lone_points(y: np.ndarray) -> bool:
    """Whether points would be lost in a bare line: a point between two gaps has no length."""
    there = np.pad(np.isfinite(y), 1)
    lone = there[1:-1] & ~there[:-2] & ~there[2:]
    return bool(lone.any()) or len(y) <= MAX_PLAIN


def _map(image: Image) -> dict[str, Any]:
    return {
        "type": "heatmap",
        "x": numbers(image.x),
        "y": numbers(image.y),
        "z": numbers(image.values),
        "colorscale": "Cividis",
        "colorbar": {"title": {"text": _text(image.unit)}},
        "meta": {"label": image.unit, "series": 0},
    }


_UNIT_CIRCLE = {"type": "circle", "name": "circle", "x0": -1, "x1": 1, "y0": -1, "y1": 1}
_NOTHING = {
    "name": "nothing",
    "text": "No value is finite.",
    "showarrow": False,
    **{"x": 0.5, "xref": "paper", "y": 0.5, "yref": "paper"},
}


def _axis(label: str, limits: Limits) -> dict[str, Any]:
    axis: dict[str, Any] = {"title": {"text": _text(label)}}
    return axis if limits is None else axis | {"range": list(limits)}


def _reference(name: str, reference: Reference, limits: Limits) -> tuple[list[Any], list[Any]]:
    """Shapes and annotations of a vertical ``mark`` or a horizontal ``level``."""
    across, along = ("x", "y") if name == "mark" else ("y", "x")
    label, place, is_near = reference
    arrows = "\u2190\u2192" if name == "mark" else "\u2193\u2191"
    shapes: list[Any] = []
    if is_near:
        ends = {f"{along}0": 0, f"{along}1": 1, f"{along}ref": "paper"}
        at = {f"{across}0": place, f"{across}1": place}
        shapes = [{"type": "line", "name": name, "layer": "below", **at, **ends}]
    elif limits:
        label = f"{label} {arrows[place > limits[1]]}"
        place = min(max(place, limits[0]), limits[1])
    annotation = {"name": name, "text": _text(label), "showarrow": False, across: place}
    return shapes, [annotation | {along: 1, f"{along}ref": "paper"}]


def _extent(values: np.ndarray) -> str:
    finite = values[np.isfinite(values)] + 0.0
    if not finite.size:
        return "no value is finite"
    gaps = f", {values.size - finite.size} of {values.size} not finite"
    return (
        f"from {finite.min():.4g} to {finite.max():.4g}{gaps if finite.size < values.size else ''}"
    )


def _course(line: Line) -> str:
    """Where a curve begins, where it ends, and its extent between if that is more."""
    there = np.flatnonzero(np.isfinite(line.y) & np.isfinite(line.x))
    if not there.size:
        return "no value is finite"
    ends = there[[0, -1]]
    (x0, x1), (y0, y1) = line.x[ends] + 0.0, line.y[ends] + 0.0  # -0.0 becomes 0.0
    words = f"{y0:.4g} at {x0:.4g}, {y1:.4g} at {x1:.4g}"
    low, high = line.y[there].min(), line.y[there].max()
    return words if {low, high} == {y0, y1} else f"{words}, between {low:.4g} and {high:.4g}"


def _count(cloud: Line) -> int:
    return int((np.isfinite(cloud.x) & np.isfinite(cloud.y)).sum())
