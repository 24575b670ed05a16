"""The numbers that a set of curves is reduced to, and how tables and summaries write them."""

from typing import Any

import numpy as np
import xarray
from numpy.typing import ArrayLike

from _kit import curves
from gradflow import flow, statistics
from gradflow.flow.summary import THRESHOLD

NEEDED = "needed_lag"
"""The attribute of a record with the lag that the regime is about."""

REGIMES = {
    "vanishing": ("falls to", "below 1/{0}"),
    "exploding": ("grows to", "above {0}"),
    "stable": ("changes to", "between 1/{0} and {0}"),
    "inconclusive": ("changes to", "not decided between 1/{0} and {0}"),
}
"""What the norm does over the needed lag in each regime, and where it is then."""

OVER_SEQUENCES = "(intervals over the input sequences of one network)"


def of_networks(
    curves: xarray.DataArray, num_networks: int, needed_lag: int | None = None
) -> flow.Summary:
    """Summarises curves (run, lag); the runs of one network count as one value."""
    values = curves.values.reshape(num_networks, -1, curves.sizes["lag"])
    return flow.summary(values, needed_lag=needed_lag)


def needed(config: Any) -> dict[str, int]:
    """Gives the lag that a task needs as an attribute of a record, where a flag gives it."""
    return {} if config.needed_lag is None else {NEEDED: config.needed_lag}


def needed_lag(dataset: xarray.Dataset) -> int | None:
    """Reads the lag that a task needs from a record; None for the longest one measured."""
    lag = dataset.attrs.get(NEEDED)
    return None if lag is None else int(lag)


def note(dataset: xarray.Dataset) -> str:
    """States what the intervals are over where a record holds several runs of one network."""
    is_one = dataset.attrs["num_networks"] == 1 < dataset.sizes["run"]
    return f"\n{OVER_SEQUENCES}" if is_one else ""


def slopes(curves: ArrayLike) -> np.ndarray:
    """Fits the slope of each curve against the lag, its last axis, in nats per step."""
    return np.apply_along_axis(statistics.slope, -1, np.asarray(curves))


def linearity(curves: ArrayLike) -> np.ndarray:
    """R² of the least-squares line through each curve's finite points, its last axis the lag."""
    return np.apply_along_axis(_linearity, -1, np.asarray(curves))


def _linearity(curve: np.ndarray) -> float:
    lag = np.flatnonzero(np.isfinite(curve))
    if len(lag) < 3 or np.ptp(curve[lag]) == 0:
        return np.nan
    return float(np.corrcoef(lag, curve[lag])[0, 1] ** 2)


def crossing(gains: np.ndarray, exponents: np.ndarray) -> float:
    """Finds the first gain at which the exponent exceeds 0, between points of a sweep; or NaN.

    The gains are in ascending order.
    """
    above = np.flatnonzero(exponents > 0)
    if not len(above) or above[0] == 0:
        return np.nan
    low, high = exponents[above[0] - 1 : above[0] + 1]
    part = -low / (high - low) if np.isfinite(low) else 1.0
    before, after = gains[above[0] - 1 : above[0] + 1]
    return float(before + part * (after - before))


def lag_text(lag: float, longest: int) -> str:
    """Writes a lag, or that it lies beyond the longest one measured."""
    return f"{lag:.0f}" if np.isfinite(lag) else f"> {longest}"


def row(found: flow.Summary, longest: int) -> dict[str, str]:
    """Gives the columns that a table has for each set of curves."""
    return {
        "factor per step": f"{found.decay:.4f}",
        "horizon": lag_text(found.horizon, longest),
        f"over {found.needed_lag} steps": factor_text(found.log_change.value),
        "regime": regime(found),
    }


def factor_text(log_factor: float) -> str:
    """Writes a factor given as a natural logarithm, however small or large it is: ``1.2e-17``."""
    if not np.isfinite(log_factor):
        return f"{np.exp(log_factor):g}"
    log10 = log_factor / np.log(10)
    if abs(log10) < 300:
        return f"{10.0**log10:.2g}"
    exponent = int(np.floor(log10))
    return f"{10.0 ** (log10 - exponent):.1f}e{exponent:+d}"


def regime(found: flow.Summary) -> str:
    """Writes the regime with its threshold: ``vanishing (below 1/10)``."""
    if found.regime not in REGIMES:
        return found.regime
    return f"{found.regime} ({REGIMES[found.regime][1].format(THRESHOLD)})"


def norm_text(source: str = "h", target: str = "h") -> str:
    """Writes the norm of a block: ``‖∂h_T/∂h_k‖``."""
    target, source = map(curves.block_text, (target, source))
    return f"‖∂{target}_T/∂{source}_k‖"


def sentence(name: str, found: flow.Summary, longest: int, norm: str = norm_text()) -> str:
    """States what the curves of one name come to, as a sentence that can be quoted."""
    if found.regime == "undefined":
        return f"{name}: {norm} is not finite from lag {found.nonfinite_lag:.0f} on."
    verb = "grows" if found.rate > 0 else "shrinks"
    reach = (
        f"below 1e-3 after {found.horizon:.0f} steps"
        if np.isfinite(found.horizon)
        else f"above 1e-3 over all {longest} steps"
    )
    factor = f"{float(np.exp(found.rate)):.3f}"
    does, where = REGIMES[found.regime]
    change, lag = factor_text(found.log_change.value), found.needed_lag
    return (
        f"{name}: {norm} {verb} by a factor {factor} per step; {reach}. Over {lag} steps it "
        f"{does} {change}, {where.format(THRESHOLD)} ({found.regime})."
    )
