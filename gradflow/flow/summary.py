"""Summary of curves of log norms against lag: the rate, the horizon and the regime."""

from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Float, Int

from gradflow.statistics import Estimate, estimate, slope

HORIZON = 1e-3
"""The norm at which a gradient counts as gone."""


class Summary(NamedTuple):
    """The summary of a set of log norm curves.

    Attributes:
      rate: Slope of log norm against lag, in nats a step; the mean over the curves.
      interval: Its 95 % confidence interval over the seeds, or over the sequences of a single
        seed; NaN for one curve.
      half_life: Steps in which the norm halves, log 2/|rate|, where it falls; else infinite.
      horizon: First lag at which the median norm is 1e-3 or less; infinite where it never is.
      dead_lag: First lag at which some curve is exactly zero (-inf); infinite where none is.
      nonfinite_lag: First lag at which some curve is NaN or overflows; infinite where none does.
      nonfinite_step: First step at which the trajectory of some curve is not finite, of those
        given; infinite where none is.
      regime: ``vanishing``, ``exploding``, ``stable`` or ``undefined``.
    """

    rate: float
    interval: tuple[float, float]
    half_life: float
    horizon: float
    dead_lag: float
    nonfinite_lag: float
    nonfinite_step: float
    regime: str

    @property
    def decay(self) -> Estimate:
        """The factor by which the norm changes in a step, exp(rate), with its interval."""
        return Estimate(self.rate, *self.interval).map(np.exp)


def summary(
    log_norms: Float[ArrayLike, "*curves lags"],
    *,
    nonfinite_steps: Int[ArrayLike, "*trajectories"] = -1,
) -> Summary:
    """Summarises curves of log norms, whose last axis is the lag and whose first is the seed.

    The slope of a curve is that of its least-squares line over its finite lags. The unit of the
    interval is the seed: sequences of one network are alike, and count as one value, the mean of
    their slopes. So curves of shape (seeds, lags) give one value a curve, and curves of shape
    (seeds, sequences, lags) one value a seed. Of a single seed, (1, sequences, lags), each
    sequence is a value: the interval is then of this one network over input sequences, and says
    nothing about networks with another seed.

    The regime is ``stable`` where that line changes by less than a factor of ten over the lags
    measured, or the interval of the rate holds zero; ``undefined`` where a curve is not finite.

    Args:
      log_norms: The curves.
      nonfinite_steps: What `first_nonfinite_step` gives of their trajectories, to be reported: the
        curves tell the lag alone, which is 1 for all that is NaN to its end.

    Raises:
      ValueError: If there is no lag beside 0.
    """
    curves = np.asarray(log_norms, np.float64)
    if curves.ndim == 0 or curves.shape[-1] < 2:
        raise ValueError(
            "Expected log norms at two lags or more along the last axis, "
            f"got shape {curves.shape}. Measure at least one step."
        )
    rate, *interval = estimate(_rates(curves))
    curves = curves.reshape(-1, curves.shape[-1])
    steps = np.asarray(nonfinite_steps, np.float64)
    nonfinite_lag = _first(np.any(np.isnan(curves) | (curves == np.inf), axis=0))
    with np.errstate(invalid="ignore"):  # between two infinities lies a NaN, which is no lag
        median = np.median(curves, axis=0)
    return Summary(
        rate=rate,
        interval=(interval[0], interval[1]),
        half_life=np.log(2) / -rate if rate < 0 else np.inf,
        horizon=float(horizons(median)),
        dead_lag=_first(np.any(curves == -np.inf, axis=0)),
        nonfinite_lag=nonfinite_lag,
        nonfinite_step=float(np.min(steps, initial=np.inf, where=steps >= 0)),
        regime="undefined"
        if nonfinite_lag < np.inf
        else _regime(rate, interval, curves.shape[-1] - 1),
    )


def _rates(curves: Float[np.ndarray, "*curves lags"]) -> Float[np.ndarray, " units"]:
    """One slope for each seed, the mean over its curves; or one for each curve of a single seed."""
    rates = np.apply_along_axis(slope, -1, curves)
    several = rates.ndim > 1 and len(rates) > 1
    return rates.reshape(len(rates), -1).mean(axis=1) if several else rates.ravel()


def horizons(log_norms: Float[ArrayLike, "*curves lags"]) -> Float[np.ndarray, "*curves"]:
    """The first lag at which each curve is 1e-3 or less; infinite where it never is."""
    gone = np.asarray(log_norms) <= np.log(HORIZON)
    return np.where(gone.any(axis=-1), gone.argmax(axis=-1), np.inf)


def _first(condition: np.ndarray) -> float:
    places = np.flatnonzero(condition)
    return float(places[0]) if len(places) else np.inf


def _regime(rate: float, interval: list[float], num_lags: int) -> str:
    undecided = interval[0] <= 0 <= interval[1]
    if undecided or abs(rate) * num_lags < np.log(10):
        return "stable"
    return "vanishing" if rate < 0 else "exploding"
