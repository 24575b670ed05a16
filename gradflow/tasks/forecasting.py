"""Forecasting: generated series, windows, and forecasts that need no network.

A window of a series ends at an origin; what lies behind it, 1 to ``ahead`` steps away, is to be
forecast. Arrays have the windows in front: (windows, steps).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Num

SHARES = (0.7, 0.1)
"""The fractions of a series for training and validation; the rest is the test."""


def two_sines(num_series: int, num_steps: int) -> Float32[np.ndarray, "series steps"]:
    """Generates sums of two sines and noise by NumPy's legacy generator with seed 42, as published.

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
    """Pieces of series with the values that follow.

    Attributes:
      inputs: The values up to the origin.
      targets: ``targets[:, t]`` are the values 1 to ``ahead`` steps after ``inputs[:, t]``.
    """

    inputs: Num[np.ndarray, "windows steps"]
    targets: Num[np.ndarray, "windows steps ahead"]


def windows(series: Num[np.ndarray, "series steps"], ahead: int) -> Windows:
    """Cuts the last ``ahead`` values off each series; targets are the next ``ahead`` of each step.

    Raises:
      ValueError: If there is no step before what is to be forecast.
    """
    if not 0 < ahead < series.shape[1]:
        raise ValueError(
            f"Expected between 1 and {series.shape[1] - 1} steps ahead for series of "
            f"{series.shape[1]} steps, got {ahead}."
        )
    following = np.lib.stride_tricks.sliding_window_view(series[:, 1:], ahead, axis=1)
    return Windows(series[:, :-ahead], following)


class Split(NamedTuple):
    """The windows of one series by the part that their targets are in; no target is in two."""

    train: Windows
    valid: Windows
    test: Windows


def split_in_time(series: Num[np.ndarray, " steps"], num_steps: int, ahead: int) -> Split:
    """Splits a series into windows for training (0.7), validation (0.1) and test, one per step.

    The inputs of a validation or test window may reach back into the part before.

    Raises:
      ValueError: If the series is too short for a window in each part.
    """
    fitted, chosen = (int(len(series) * share) for share in (SHARES[0], sum(SHARES)))
    room = min(fitted - num_steps, chosen - fitted, len(series) - chosen)
    if room < ahead:
        raise ValueError(
            f"Expected {ahead} steps to forecast in each part, after a window of {num_steps}, got "
            f"a series of {len(series)} steps. Use shorter windows or a longer series."
        )
    starts, ends = (0, fitted - num_steps, chosen - num_steps), (fitted, chosen, len(series))
    size = num_steps + ahead
    pieces = [
        np.lib.stride_tricks.sliding_window_view(series[start:end], size)
        for start, end in zip(starts, ends, strict=True)
    ]
    return Split(*(windows(piece, ahead) for piece in pieces))


def naive(inputs: Num[np.ndarray, "windows steps"], ahead: int) -> Num[np.ndarray, "windows ahead"]:
    """Forecasts the last value for all steps."""
    return np.repeat(inputs[:, -1:], ahead, axis=1)


def seasonal_naive(
    series: Num[np.ndarray, " steps"], first_origin: int, ahead: int, period: int
) -> Num[np.ndarray, "origins ahead"]:
    """Forecasts the value one season before, for all origins that have all targets.

    Raises:
      ValueError: If there is no whole season before the first origin.
    """
    if not 0 < period <= first_origin + 1:
        raise ValueError(
            f"Expected a period between 1 and {first_origin + 1}, the number of steps before the "
            f"first forecast, got {period}."
        )
    lead = np.arange(1, ahead + 1)
    origins = np.arange(first_origin, len(series) - ahead)[:, None]
    return series[origins + lead - period * -(-lead // period)]


def least_squares(
    inputs: Num[np.ndarray, "windows steps"], targets: Num[np.ndarray, "windows ahead"]
) -> Float[np.ndarray, "steps_and_one ahead"]:
    """Fits the best linear forecast of these windows: weights, and in the last row constants."""
    return np.linalg.lstsq(_with_one(inputs), targets, rcond=None)[0]


def linear(
    weights: Float[np.ndarray, "steps_and_one ahead"], inputs: Num[np.ndarray, "windows steps"]
) -> Float[np.ndarray, "windows ahead"]:
    """Computes the forecasts of a linear model."""
    return _with_one(inputs) @ weights


def _with_one(inputs: np.ndarray) -> np.ndarray:
    return np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
