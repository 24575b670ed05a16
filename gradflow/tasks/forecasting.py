"""Forecasting: a synthetic series, windows of series, and forecasts without a neural network.

A window of a series ends at its origin. The targets are the values 1 to ``ahead`` steps after the
origin. The windows are the leading axis of every array: (windows, steps).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Num

SPLIT = (0.7, 0.1)
"""Fractions of a series for training and for validation; the rest is the test set."""


def two_sines(num_series: int, num_steps: int) -> Float32[np.ndarray, "series steps"]:
    """Samples sums of two sines and noise from NumPy's legacy generator, seed 42, as published.

    With frequencies f, g and phases a, b uniform in [0, 1) and t from 0 to 1::

        x(t) = 0.5 sin((t - a)(10 f + 10)) + 0.2 sin((t - b)(20 g + 20)) + U(-0.05, 0.05)

    Source: Géron 2019, Hands-On Machine Learning, 2nd ed., chapter 15, and its notebook.
    """
    rng = np.random.RandomState(42)
    first, second, offset_1, offset_2 = rng.rand(4, num_series, 1)
    time = np.linspace(0, 1, num_steps)
    series = 0.5 * np.sin((time - offset_1) * (first * 10 + 10))
    series += 0.2 * np.sin((time - offset_2) * (second * 20 + 20))
    series += 0.1 * (rng.rand(num_series, num_steps) - 0.5)
    return series.astype(np.float32)


class Windows(NamedTuple):
    """Windows of series and their targets.

    Attributes:
      inputs: The values up to the origin.
      targets: ``targets[:, t]`` are the values 1 to ``ahead`` steps after ``inputs[:, t]``.
    """

    inputs: Num[np.ndarray, "windows steps"]
    targets: Num[np.ndarray, "windows steps ahead"]


def windows(series: Num[np.ndarray, "series steps"], ahead: int) -> Windows:
    """Makes one window of each series: all but its last ``ahead`` values are inputs.

    Raises:
      ValueError: If the series are too short for one input and its targets.
    """
    if not 0 < ahead < series.shape[1]:
        raise ValueError(
            f"Expected between 1 and {series.shape[1] - 1} steps ahead for series of "
            f"{series.shape[1]} steps, got {ahead}. Decrease it, or give longer series."
        )
    following = np.lib.stride_tricks.sliding_window_view(series[:, 1:], ahead, axis=1)
    return Windows(series[:, :-ahead], following)


class Split(NamedTuple):
    """The windows of one series, split by the time of their targets: no target is in two parts."""

    train: Windows
    valid: Windows
    test: Windows


def split_in_time(series: Num[np.ndarray, " steps"], num_steps: int, ahead: int) -> Split:
    """Splits a series at 0.7 and 0.8 of its length, with a window at every possible origin.

    The inputs of a window may lie before its part, as they would be known at forecast time; its
    targets may not.

    Raises:
      ValueError: If the series is too short for a window in each part.
    """
    fitted, chosen = (int(len(series) * fraction) for fraction in (SPLIT[0], sum(SPLIT)))
    room = min(fitted - num_steps, chosen - fitted, len(series) - chosen)
    if room < ahead:
        raise ValueError(
            f"Expected a series with {ahead} steps to forecast in each part after a window of "
            f"{num_steps}, got {len(series)} steps. Use shorter windows or a longer series."
        )
    starts, ends = (0, fitted - num_steps, chosen - num_steps), (fitted, chosen, len(series))
    size = num_steps + ahead
    pieces = [
        np.lib.stride_tricks.sliding_window_view(series[start:end], size)
        for start, end in zip(starts, ends, strict=True)
    ]
    return Split(*(windows(piece, ahead) for piece in pieces))


def naive(inputs: Num[np.ndarray, "windows steps"], ahead: int) -> Num[np.ndarray, "windows ahead"]:
    """Forecasts that the last value repeats."""
    return np.repeat(inputs[:, -1:], ahead, axis=1)


def seasonal_naive(
    series: Num[np.ndarray, " steps"], first_origin: int, ahead: int, period: int
) -> Num[np.ndarray, "origins ahead"]:
    """Forecasts the value of one period before, at every origin from the first with all targets.

    Raises:
      ValueError: If there is no whole period before the first origin.
    """
    if not 0 < period <= first_origin + 1:
        raise ValueError(
            f"Expected a period between 1 and {first_origin + 1}, the number of steps before the "
            f"first forecast, got {period}. Decrease it."
        )
    lead = np.arange(1, ahead + 1)
    origins = np.arange(first_origin, len(series) - ahead)[:, None]
    return series[origins + lead - period * -(-lead // period)]


def least_squares(
    inputs: Num[np.ndarray, "windows steps"], targets: Num[np.ndarray, "windows ahead"]
) -> Float[np.ndarray, "steps_and_one ahead"]:
    """Computes the least-squares linear forecast of the targets; the last row is the intercept."""
    return np.linalg.lstsq(_with_one(inputs), targets, rcond=None)[0]


def linear(
    weights: Float[np.ndarray, "steps_and_one ahead"], inputs: Num[np.ndarray, "windows steps"]
) -> Float[np.ndarray, "windows ahead"]:
    """Computes the forecasts of a linear model with weights from `least_squares`."""
    return _with_one(inputs) @ weights


def _with_one(inputs: np.ndarray) -> np.ndarray:
    return np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
