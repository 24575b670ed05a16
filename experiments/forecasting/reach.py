"""How far the gradient of the trained networks reaches, and whether further is better."""

from collections.abc import Iterator

import numpy as np
import xarray
from _kit import rates

from gradflow import flow, study


def curves_of(dataset: xarray.Dataset, name: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Gives the lags and the curves of a model; None for one without a gradient."""
    data = dataset.log_norm.sel(model=name).dropna("lag", how="all").dropna("curve", how="all")
    return (data.lag.values, data.values) if data.size else None


def horizon(dataset: xarray.Dataset, name: str) -> tuple[float, str]:
    """Computes the lag at which the median norm is 1e-3, at most the longest one, and as text."""
    found = curves_of(dataset, name)
    if found is None:
        return np.nan, ""
    lag, curves = found
    reached = flow.summary(curves).horizon
    at = float(lag[int(reached)]) if np.isfinite(reached) else np.inf
    return min(at, float(lag[-1])), rates.lag_text(at, int(lag[-1]))


def further_is_better(
    id: str, where: str, horizons: np.ndarray, errors: np.ndarray
) -> Iterator[study.Claim]:
    """Claims that the networks whose gradient reaches further forecast better.

    Args:
      id: That of the claim.
      where: What is appended to the statement.
      horizons: Of each model; NaN without a gradient.
      errors: Of each model. With fewer than three networks, or one horizon, nothing is claimed.
    """
    networks = np.isfinite(horizons) & np.isfinite(errors)
    if networks.sum() < 3 or len(set(horizons[networks])) < 2:
        return
    rank, p = _rank_correlation(horizons[networks], errors[networks])
    yield study.claim(
        id,
        f"Networks whose gradient reaches further forecast better{where}.",
        rank < 0 if p < 0.05 else None,
        measured={
            "rank correlation of horizon and error": rank,
            "p by permutation": p,
            "networks": int(networks.sum()),
        },
        criterion="the rank correlation of horizon and error is below 0 with p < 0.05",
    )


def _rank_correlation(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Spearman's rank correlation and its two-sided p by 2000 permutations."""
    from scipy import stats  # here, because importing SciPy changes the global warning filters

    ranks = [stats.rankdata(values) for values in (first, second)]
    rank = float(np.corrcoef(*ranks)[0, 1])
    rng = np.random.default_rng(0)
    shuffled = [np.corrcoef(ranks[0], rng.permutation(ranks[1]))[0, 1] for _ in range(2000)]
    # The margin counts permutations that equal the measured order but for rounding.
    return rank, float(np.mean(np.abs(shuffled) >= abs(rank) - 1e-9))
