"""The numbers that a set of curves is reduced to, and how tables and summaries write them."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from gradflow import flow, statistics

if TYPE_CHECKING:
    import xarray

OVER_SEQUENCES = "(intervals over the input sequences of one network)"


def of_networks(curves: "xarray.DataArray", num_networks: int) -> flow.Summary:
    """Summarises curves (run, lag); the runs of one network count as one value."""
    values = curves.values
    return flow.summary(values.reshape(num_networks, -1, values.shape[-1]))


def note(dataset: "xarray.Dataset") -> str:
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


def lag_text(lag: float, longest: int) -> str:
    """Writes a lag, or that it lies beyond the longest one measured."""
    return f"{lag:.0f}" if np.isfinite(lag) else f"> {longest}"


def row(found: flow.Summary, longest: int) -> dict[str, str]:
    """Gives the columns that a table has for each set of curves."""
    return {
        "factor per step": f"{found.decay:.4f}",
        "horizon": lag_text(found.horizon, longest),
        "regime": found.regime,
    }


def sentence(name: str, found: flow.Summary, longest: int) -> str:
    """States what the curves of one name come to, as a sentence that can be quoted."""
    if found.regime == "undefined":
        return f"{name}: ‖∂h_T/∂h_k‖ is not finite from lag {found.nonfinite_lag:.0f} on."
    verb = "grows" if found.rate > 0 else "shrinks"
    reach = (
        f"below 1e-3 after {found.horizon:.0f} steps"
        if np.isfinite(found.horizon)
        else f"above 1e-3 over all {longest} steps"
    )
    factor = f"{float(np.exp(found.rate)):.3f}"
    return f"{name}: ‖∂h_T/∂h_k‖ {verb} by a factor {factor} per step; {reach} ({found.regime})."
