"""Summary of curves of log norms against lag: the rate, the horizon and the regime."""

from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Float, Int

from gradflow.checks import check_integer
from gradflow.statistics import Estimate, estimate, slope

HORIZON = 1e-3
"""The norm at which a gradient counts as gone."""

THRESHOLD = 10
"""The factor over the needed lag by which a gradient has to fall to be ``vanishing``, or to grow to
be ``exploding``."""


class Summary(NamedTuple):
    """The summary of a set of log norm curves.

    Attributes:
      rate: Slope of log norm against lag, in nats a step; the mean over the curves.
      interval: Its 95 % confidence interval over the seeds, or over the sequences of a single
        seed; NaN for one curve.
      half_life: Steps in which the norm halves, log 2/|rate|, where it falls; else infinite.
      horizon: First lag at which the median norm is 1e-3 or less; infinite where it never is.
      dead_lag: First lag at which some curve is exactly zero (-inf); infinite where none is. Lag 0
        does not count: there a block of the identity is zero by definition, for source ``c`` and
        target ``h`` as for any two blocks that share nothing.
      nonfinite_lag: First lag at which some curve is NaN or overflows; infinite where none does.
      nonfinite_step: First step at which the trajectory of some curve is not finite, of those
        given; infinite where none is.
      needed_lag: The lag that the regime is about, in steps.
      log_change: Natural logarithm of the factor by which the norm changes over the needed lag,
        rate · needed_lag, with the interval of the rate; -inf where most curves are exactly zero
        by then.
      regime: ``vanishing``, ``exploding``, ``stable``, ``inconclusive`` or ``undefined``.
    """

    rate: float
    interval: tuple[float, float]
    half_life: float
    horizon: float
    dead_lag: float
    nonfinite_lag: float
    nonfinite_step: float
    needed_lag: int
    log_change: Estimate
    regime: str

    def __repr__(self) -> str:
        """Writes the regime at the needed lag, the factor per step and the horizon."""
        horizon = f"{self.horizon:.0f}" if self.horizon < np.inf else "beyond the longest lag"
        factor = f"{np.exp(self.rate):.4f}" if np.isnan(self.interval[0]) else f"{self.decay:.4f}"
        return (
            f"{self.regime} at lag {self.needed_lag}: factor per step {factor}, over "
            f"{self.needed_lag} steps {np.exp(self.log_change.value):.2g}; horizon {horizon}"
        )

    @property
    def decay(self) -> Estimate:
        """The factor by which the norm changes in a step, exp(rate), with its interval."""
        return Estimate(self.rate, *self.interval).map(np.exp)


def summary(
    log_norms: Float[ArrayLike, "*curves lags"],
    *,
    needed_lag: int | None = None,
    nonfinite_steps: Int[ArrayLike, "*trajectories"] = -1,
) -> Summary:
    """Summarises curves of log norms, whose last axis is the lag and whose first is the seed.

    The slope of a curve is that of its least-squares line over its finite lags. The unit of the
    interval is the seed: sequences of one network are alike, and count as one value, the mean of
    their slopes. So curves of shape (seeds, lags) give one value a curve, and curves of shape
    (seeds, sequences, lags) one value a seed. Of a single seed, (1, sequences, lags), each
    sequence is a value: the interval is then of this one network over input sequences, and says
    nothing about networks with another seed.

    The regime is about the lag that a task needs. With f the factor by which the norm changes over
    this lag, exp(rate · needed_lag), it is ``vanishing`` for f < 1/10, ``exploding`` for f > 10 and
    ``stable`` between, if the whole interval of f is there (f itself, if it has no interval);
    ``inconclusive`` if the interval contains 1/10 or 10; ``undefined`` where a curve is not finite.

    Args:
      log_norms: The curves.
      needed_lag: The lag that the task needs, by default the longest one measured. Beyond that the
        line is extrapolated.
      nonfinite_steps: What `first_nonfinite_step` gives of their trajectories, to be reported: the
        curves tell the lag alone, which is 1 for all that is NaN to its end.

    Raises:
      TypeError: If the needed lag is not an integer.
      ValueError: If there is no lag beside 0, or the needed lag is below 1.
    """
    curves = np.asarray(log_norms, np.float64)
    if curves.ndim == 0 or curves.shape[-1] < 2:
        raise ValueError(
            "Expected log norms at two lags or more along the last axis, "
            f"got shape {curves.shape}. Measure at least one step."
        )
    longest = curves.shape[-1] - 1
    needed = longest if needed_lag is None else needed_lag
    check_integer("needed_lag", needed, 1)
    rate, *interval = estimate(_rates(curves))
    curves = curves.reshape(-1, curves.shape[-1])
    steps = np.asarray(nonfinite_steps, np.float64)
    nonfinite_lag = _first(np.any(np.isnan(curves) | (curves == np.inf), axis=0))
    with np.errstate(invalid="ignore"):  # between two infinities lies a NaN, which is no lag
        median = np.median(curves, axis=0)
    log_change = Estimate(rate, *interval).map(lambda slope: slope * needed)
    if np.mean(curves[:, min(needed, longest)] == -np.inf) > 0.5:
        log_change = Estimate(-np.inf, -np.inf, -np.inf)
    return Summary(
        rate=rate,
        interval=(interval[0], interval[1]),
        half_life=np.log(2) / -rate if rate < 0 else np.inf,
        horizon=float(horizons(median)),
        dead_lag=_first(np.any(curves[:, 1:] == -np.inf, axis=0)) + 1,
        nonfinite_lag=nonfinite_lag,
        nonfinite_step=float(np.min(steps, initial=np.inf, where=steps >= 0)),
        needed_lag=needed,
        log_change=log_change,
        regime="undefined" if nonfinite_lag < np.inf else _regime(log_change),
    )


def _rates(curves: Float[np.ndarray, "*curves lags"]) -> Float[np.ndarray, " units"]:
    """One slope for each seed, the mean over its curves; or one for each curve of a single seed."""
    rates = np.apply_along_axis(slope, -1, curves)
    several = rates.ndim > 1 and len(rates) > 1
    return rates.reshape(len(rates), -1).mean(axis=1) if several else rates.ravel()


def horizons(log_norms: Float[ArrayLike, "*curves lags"]) -> Float[np.ndarray, "*curves"]:
    """The first lag at which each curve is 1e-3 or less; infinite where it never is.

    Lag 0 counts only if the norm there is not exactly zero, as it is for blocks that share nothing.
    """
    log_norms = np.asarray(log_norms)
    gone = log_norms <= np.log(HORIZON)
    gone[..., 0] &= log_norms[..., 0] > -np.inf
    return np.where(gone.any(axis=-1), gone.argmax(axis=-1), np.inf)


def _first(condition: np.ndarray) -> float:
    places = np.flatnonzero(condition)
    return float(places[0]) if len(places) else np.inf


def _regime(log_change: Estimate) -> str:
    bound = np.log(THRESHOLD)
    value, *interval = log_change
    low, high = (value, value) if np.isnan(interval).any() else interval
    if high < -bound:
        return "vanishing"
    if low > bound:
        return "exploding"
    return "stable" if -bound <= low and high <= bound else "inconclusive"
