"""The figure of a sweep whose study does not draw its joined records."""

import itertools
import json
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gradflow.study.figure import series_style
from gradflow.study.sweep.merged import CLAIM, NUMBERS

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_PANELS = 6
"""The claims that are drawn; the numbers of all are in the dataset."""

MOST_TICKS = 8
"""The swept numbers that all get a tick."""


def figure(dataset: "xarray.Dataset") -> "Figure":
    """Draws the first number of each claim against the longest swept axis, with its interval.

    There is a line for each combination of the other swept flags.
    """
    from matplotlib.figure import Figure

    names = list(json.loads(dataset.attrs["sweep"]))
    numeric = [name for name in names if np.issubdtype(dataset[name].dtype, np.number)]
    x = max(numeric or names, key=lambda name: dataset.sizes[name])
    claims = dataset[CLAIM].values[:MOST_PANELS]
    drawn = Figure(figsize=(6.4, 0.4 + 2.3 * max(1, len(claims))))
    panels = drawn.subplots(max(1, len(claims)), squeeze=False)[:, 0]
    statements = json.loads(dataset.attrs["statements"])
    for ax, claim in zip(panels, claims, strict=False):
        _draw(ax, dataset.sel({CLAIM: claim}), x, [name for name in names if name != x])
        ax.set_title(textwrap.fill(statements[claim], 80), wrap=True)
        ax.set_ylabel("measured")
    panels[-1].set_xlabel(x)
    if len(names) > 1:
        handles, labels = panels[0].get_legend_handles_labels()
        drawn.legend(handles, labels, loc="outside right upper")
    return drawn


def _draw(ax: "Axes", dataset: "xarray.Dataset", x: str, others: Sequence[str]) -> None:
    places = dataset[x].values
    if not np.issubdtype(places.dtype, np.number):
        places = places.astype(str)
    elif len(places) <= MOST_TICKS:
        ax.set_xticks(places)
    for i, values in enumerate(itertools.product(*(dataset[name].values for name in others))):
        point = dict(zip(others, values, strict=True))
        one = dataset.sel(point)
        middle, low, high = (one[name].values.astype(float) for name in NUMBERS)
        ends = np.abs(np.stack([middle - low, high - middle]))
        label = ", ".join(f"{name}={value}" for name, value in point.items())
        ax.errorbar(places, middle, np.nan_to_num(ends), label=label or None, **series_style(i))
