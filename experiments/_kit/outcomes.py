"""What trained runs came to: which of them solved their task, and when, in tables and figures."""

from typing import Any

import numpy as np
import xarray
from numpy.typing import ArrayLike

from gradflow.study.figure import Axes

REFERENCE = {"color": "#606060", "linewidth": 0.8, "linestyle": (0, (1, 1))}
"""The style of a line at a value that curves are compared with."""


def number_solved(solved_at: ArrayLike) -> str:
    """Writes how many runs solved their task: ``2 of 5``."""
    solved = np.isfinite(np.asarray(solved_at, float))
    return f"{solved.sum()} of {solved.size}"


def median_update(solved_at: ArrayLike) -> float:
    """Computes the median update at which the runs that solved their task did so; NaN if none."""
    at = np.asarray(solved_at, float)
    at = at[np.isfinite(at)]
    return float(np.median(at)) if at.size else np.nan


def final_loss(data: xarray.Dataset) -> float:
    """Computes the median of the last losses of the seeds that did not die; NaN if all died."""
    loss = data.loss.transpose("seed", "update").values[np.isnan(data.died_at.values)]
    reached = np.flatnonzero(np.isfinite(loss).any(axis=0))
    return float(np.median(loss[:, reached[-1]])) if len(reached) else np.nan


def row(solved_at: ArrayLike) -> dict[str, str]:
    """Gives the columns that a table has for the runs of each setting."""
    update = median_update(solved_at)
    return {
        "solved": number_solved(solved_at),
        "updates to solve": f"{update:.0f}" if np.isfinite(update) else "-",
    }


def draw_losses(ax: Axes, baseline: float, **settings: Any) -> None:
    """Sets up the axes of losses against updates, with a dotted line at the baseline's loss."""
    ax.axhline(baseline, **REFERENCE)
    ax.set(**{"yscale": "log", "xlabel": "update", **settings})
