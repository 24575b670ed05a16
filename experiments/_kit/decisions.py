"""From an interval to a verdict: True, False, or None where the interval does not decide.

The decisions are what `gradflow.study.claim` takes as ``holds``. NaN ends decide nothing.
"""

import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from gradflow import study
from gradflow.statistics import Estimate, estimate, mean_interval


def above(estimate: Estimate, bound: float = 0.0) -> bool | None:
    """Decides whether a number lies above a bound, by its interval."""
    if estimate.low > bound:
        return True
    return False if estimate.high < bound else None


def below(estimate: Estimate, bound: float = 0.0) -> bool | None:
    """Decides whether a number lies below a bound, by its interval."""
    if estimate.high < bound:
        return True
    return False if estimate.low > bound else None


def within(estimate: Estimate, low: float, high: float) -> bool | None:
    """Decides whether a number lies between two bounds, by its interval."""
    if low <= estimate.low and estimate.high <= high:
        return True
    return False if estimate.high < low or estimate.low > high else None


def nonzero(estimate: Estimate) -> bool | None:
    """Decides whether a number differs from 0; an interval that contains 0 does not decide it."""
    return True if estimate.low > 0 or estimate.high < 0 else None


def every(decisions: Iterable[Any]) -> bool | None:
    """Joins decisions: False if one is, else None if one is, else True."""
    found = list(decisions)
    if any(one is not None and not one for one in found):
        return False
    return None if None in found else True


def differ(values: np.ndarray) -> bool | None:
    """Decides whether the rows (row, run) have several means, by all paired differences."""
    first, second = np.triu_indices(len(values), 1)
    if values.shape[1] < 2 or not len(first):
        return None
    low, high = mean_interval(values[second] - values[first])
    return True if bool(((low > 0) | (high < 0)).any()) else None


def positive(
    id: str, statement: str, name: str, values: Any, *, unit: str = "1", over: str = "seeds"
) -> study.Claim:
    """Claims that the mean of independent values, such as paired differences, is above 0.

    Args:
      id: That of the claim.
      statement: What the claim says.
      name: What the values are.
      values: One for each independent run; a single one decides nothing.
      unit: Their unit.
      over: What the interval is over.
    """
    found = estimate(np.asarray(values))
    return study.claim(
        id,
        statement,
        above(found),
        measured=study.Measured.of(name, found, unit),
        criterion=f"the 95 % interval over {over} lies above 0",
        reason="" if len(values) > 1 else "a single value has no interval",
    )


def identifier(*parts: str) -> str:
    """Joins names, such as that of a claim and the spec of a cell, to a claim's id."""
    return re.sub("[^a-z0-9]+", "-", " ".join(parts).lower()).strip("-")
