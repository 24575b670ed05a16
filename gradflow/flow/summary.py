"""One row for a curve of log norms against lag: how fast it falls, and how far it reaches."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Float, Int

from gradflow.flow.estimate import Estimate, bootstrap

HORIZON = 1e-3
"""The norm at which a gradient counts as gone."""


class Summary(NamedTuple):
    """What a set of log norm curves comes to.

    Attributes:
      rate: Slope of log norm against lag, in nats a step; the mean over the curves.
      interval: Its 95 % confidence interval, by bootstrap over the curves; NaN for one curve.
      half_life: Steps in which the norm halves, log 2/|rate|, where it falls; else infinite.
      horizon: First lag at which the median norm is 1e-3 or less; infinite where it never is.
      dead_lag: First lag at which some curve is exactly zero (-inf); infinite where none is.
      broken_lag: First lag at which some curve is NaN or overflows; infinite where none does.
      broken_step: First step at which the trajectory of some curve is not finite, of those given;
        infinite where none is.
      word: ``vanishing``, ``exploding``, ``stable`` or ``undefined``.
    """

    rate: float
    interval: tuple[float, float]
    half_life: float
    horizon: float
    dead_lag: float
    broken_lag: float
    broken_step: float
    word: str

    @property
    def decay(self) -> Estimate:
        """The factor by which the norm changes in a step, exp(rate), with its interval."""
        return Estimate(self.rate, *self.interval).map(np.exp)


def summary(
    log_norms: Float[ArrayLike, "*curves lags"],
    *,
    broken_steps: Int[ArrayLike, "*trajectories"] = -1,
) -> Summary:
    """Summarises curves of log norms whose last axis is the lag.

    The slope of a curve is that of its least-squares line over its finite lags. The word is
    ``stable`` where that line changes by less than a factor of ten over the lags measured, or
    the interval of the rate holds zero; ``undefined`` where a curve is broken.

    Args:
      log_norms: The curves.
      broken_steps: What `first_broken_step` gives of their trajectories, to be named: the curves
        tell the lag alone, which is 1 for all that is NaN to its end.

    Raises:
      ValueError: If there is no lag beside 0.
    """
    curves = np.asarray(log_norms, np.float64)
    if curves.ndim == 0 or curves.shape[-1] < 2:
        raise ValueError(
            f"log norms at two lags or more, along the last axis, are expected, "
            f"got shape {curves.shape}; measure at least one step"
        )
    curves = curves.reshape(-1, curves.shape[-1])
    rates = np.array([slope(curve) for curve in curves])
    rate, interval = float(np.mean(rates)), bootstrap(rates)
    steps = np.asarray(broken_steps, np.float64)
    broken_lag = _first(np.any(np.isnan(curves) | (curves == np.inf), axis=0))
    with np.errstate(invalid="ignore"):  # between two infinities lies a NaN, which is no lag
        median = np.median(curves, axis=0)
    return Summary(
        rate=rate,
        interval=interval,
        half_life=np.log(2) / -rate if rate < 0 else np.inf,
        horizon=float(horizons(median)),
        dead_lag=_first(np.any(curves == -np.inf, axis=0)),
        broken_lag=broken_lag,
        broken_step=float(np.min(steps, initial=np.inf, where=steps >= 0)),
        word="undefined" if broken_lag < np.inf else _word(rate, interval, curves.shape[-1] - 1),
    )


def slope(log_norms: Sequence[float] | np.ndarray) -> float:
    """The slope of the least-squares line through the finite points of one curve, per lag.

    A curve with fewer than two of them after lag 0 was cut at once: -inf.
    """
    curve = np.asarray(log_norms, np.float64)
    lags = np.flatnonzero(np.isfinite(curve))
    if len(lags) < 2:
        return -np.inf
    return float(np.polyfit(lags, curve[lags], 1)[0])


def horizons(log_norms: Float[ArrayLike, "*curves lags"]) -> Float[np.ndarray, "*curves"]:
    """The first lag at which each curve is 1e-3 or less; infinite where it never is."""
    gone = np.asarray(log_norms) <= np.log(HORIZON)
    return np.where(gone.any(axis=-1), gone.argmax(axis=-1), np.inf)


def _first(condition: np.ndarray) -> float:
    places = np.flatnonzero(condition)
    return float(places[0]) if len(places) else np.inf


def _word(rate: float, interval: tuple[float, float], num_lags: int) -> str:
    undecided = interval[0] <= 0 <= interval[1]
    if undecided or abs(rate) * num_lags < np.log(10):
        return "stable"
    return "vanishing" if rate < 0 else "exploding"
