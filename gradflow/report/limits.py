"""Limits of a plot's axes, so that the data and the lines of reference are seen."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from gradflow.report.parts import Panel

Limits = tuple[float, float] | None
"""The least and the greatest value of an axis, or nothing where no value is finite."""


class Reference(NamedTuple):
    """A line of reference across a plot.

    Attributes:
      label: Its label.
      place: Its place along the axis that it crosses.
      is_near: Whether it is near enough to the data to be drawn.
    """

    label: str
    place: float
    is_near: bool


def limits_of(panel: Panel) -> tuple[Limits, Limits]:
    """Finds the limits of both axes from the data of a panel alone."""
    if panel.image is not None:
        grid = _of_cells(panel.image.x), _of_cells(panel.image.y)
        return grid if np.isfinite(panel.image.values).any() else (None, None)
    lines = panel.points or panel.lines
    edges = [part for line in lines for part in (line.y, line.low, line.high) if part is not None]
    x = _around((line.x for line in lines), 0.04 if panel.points else 0.0)
    y = _around(edges, 0.05)
    if panel.points and x and y:
        x, y = (min(x[0], -1.08), max(x[1], 1.08)), (min(y[0], -1.08), max(y[1], 1.08))
    return x, y


def references(named: Iterable[tuple[str, float]], limits: Limits, slack: float) -> list[Reference]:
    """Sorts out which lines of reference are drawn; a place that is not finite is left out.

    A line that is further from the data than ``slack`` times their extent would press the data
    together, so that it is not near.
    """
    finite = [(label, float(place)) for label, place in named if math.isfinite(place)]
    if limits is None:
        return [Reference(label, place, True) for label, place in finite]
    room = slack * (limits[1] - limits[0])
    low, high = limits[0] - room, limits[1] + room
    return [Reference(label, place, low <= place <= high) for label, place in finite]


def widened(limits: Limits, lines: Iterable[Reference]) -> Limits:
    """Widens limits so that the near lines of reference are seen, with a little room beyond."""
    near = [line.place for line in lines if line.is_near]
    if limits is None or not near:
        return limits
    room = 0.04 * (limits[1] - limits[0])
    low = limits[0] if min(near) >= limits[0] else min(near) - room
    high = limits[1] if max(near) <= limits[1] else max(near) + room
    return low, high


def _around(parts: Iterable[np.ndarray], margin: float) -> Limits:
    """The least and the greatest finite value, with a margin as a fraction of their distance."""
    values = np.concatenate([np.zeros(0), *(np.ravel(part) for part in parts)])
    # Clipped, since the distance of the two greatest numbers would overflow.
    values = np.clip(values[np.isfinite(values)], -1e300, 1e300)
    if not values.size:
        return None
    low, high = float(values.min()), float(values.max())
    room = margin * (high - low) if high > low else max(abs(low) / 10, 0.5)
    return low - room, high + room


def _of_cells(places: np.ndarray) -> Limits:
    """The outer edges of the cells around equally spaced places."""
    limits = _around([places], 0.0)
    if limits is None or len(places) < 2:
        return limits
    half = (limits[1] - limits[0]) / (len(places) - 1) / 2
    return limits[0] - half, limits[1] + half
