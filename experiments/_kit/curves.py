"""Curves of log norms in figures: axes with their names, bands over runs, coordinates of records.

Records hold natural logarithms, axes show log10.
"""

import math
from typing import Any

import numpy as np

from gradflow import study
from gradflow.spec import parse_spec
from gradflow.study.figure import Axes, Line2D

NATS = math.log(10)
"""Nats in one order of magnitude."""

LAG = "lag T − k (steps)"

NORM = r"$\log_{10}\,\|\partial h_T/\partial h_k\|$"

SHADES = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7")
"""Colours of a few curves that are not cells."""

CUT = "#b0b0b0"
"""The colour of an exact zero in a map: a grey, which the colour map does not have."""


def block_text(name: str) -> str:
    """Writes the name of a block for an index to follow: ``h``, ``(C,n)``."""
    return name if len(name) == 1 else f"({name})"


def norm_label(source: str, target: str, later: str = "T", earlier: str = "k") -> str:
    """Names the axis of log10 ‖∂target_T/∂source_k‖."""
    target, source = map(block_text, (target, source))
    return rf"$\log_{{10}}\,\|\partial {target}_{later}/\partial {source}_{earlier}\|$"


def task_title(spec: str) -> str:
    """Writes the spec of a task for a panel's title: ``Temporal order, T = 20``."""
    name, options = parse_spec(spec)
    shown = [f"{key} = {value}" for key, value in options.items() if key != "num_steps"]
    length = [f"T = {options['num_steps']}"] if "num_steps" in options else []
    return ", ".join([name.replace("_", " ").capitalize(), *length, *shown])


def coordinates(num_steps: int) -> dict[str, Any]:
    """Gives the coordinates ``lag``, 0 to T, and ``step``, 1 to T, of a record."""
    return {
        "lag": ("lag", np.arange(num_steps + 1), {"units": "steps"}),
        "step": ("step", np.arange(1, num_steps + 1), {"units": "steps"}),
    }


def draw_norms(ax: Axes, lag: Any, log_norms: Any, **look: Any) -> Line2D:
    """Draws log norms (run, lag) as the median and the 10-90 % band of log10 against the lag."""
    return study.figure.band(ax, lag, log_norms / NATS, "run", **look)


def lag_axis(ax: Axes, data: Any) -> None:
    """Names the axis of the lag, and ends it at the longest lag."""
    ax.set_xlabel(LAG)
    ax.set_xlim(0, data.sizes["lag"] - 1)


def shades(number: int) -> list[Any]:
    """Gives the colours of an ordered family of curves, from dark to light."""
    from matplotlib import colormaps

    return [colormaps["viridis"](0.87 * i / max(1, number - 1)) for i in range(number)]
