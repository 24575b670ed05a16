"""Forecasting: series, windows of them, forecasts that need no net, and how forecasts are judged.

A window of a series ends at an origin; what lies behind it, 1 to ``ahead`` steps away, is to be
forecast. Arrays have the windows in front: (windows, steps).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Num

SHARES = (0.7, 0.1)
"""Of a series, what a model is fitted to and what it is chosen by; the rest is the test."""


def two_sines(num_series: int, num_steps: int) -> Float32[np.ndarray, "series steps"]:
    """Sums of two sines and noise, drawn by NumPy's old generator with seed 42, as published.

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
    """Pieces of series, and what follows them.

    Attributes:
      inputs: The values up to the origin.
      targets: ``targets[:, t]`` are the values 1 to ``ahead`` steps after ``inputs[:, t]``.
    """

    inputs: Num[np.ndarray, "windows steps"]
    targets: Num[np.ndarray, "windows steps ahead"]


def windows(series: Num[np.ndarray, "series steps"], ahead: int) -> Windows:
    """All but the last ``ahead`` values of each series, with the next ``ahead`` of every step.

    Raises:
      ValueError: If there is no step before what is to be forecast.
    """
    if not 0 < ahead < series.shape[1]:
        raise ValueError(
            f"between 1 and {series.shape[1] - 1} steps ahead are expected of series of "
            f"{series.shape[1]} steps, got {ahead}"
        )
    following = np.lib.stride_tricks.sliding_window_view(series[:, 1:], ahead, axis=1)
    return Windows(series[:, :-ahead], following)


class Split(NamedTuple):
    """The windows of one series, by where what is to be forecast lies; no target is in two."""

    train: Windows
    valid: Windows
    test: Windows


def split_in_time(series: Num[np.ndarray, " steps"], num_steps: int, ahead: int) -> Split:
    """Windows with their origins at every step: the first 0.7 to fit, 0.1 to choose by, a test.

    A window that is chosen by or tested reaches back into what is before its part, as it may.

    Raises:
      ValueError: If the series is too short for a window in each part.
    """
    fitted, chosen = (int(len(series) * share) for share in (SHARES[0], sum(SHARES)))
    room = min(fitted - num_steps, chosen - fitted, len(series) - chosen)
    if room < ahead:
        raise ValueError(
            f"{ahead} steps to forecast in each part, after a window of {num_steps}, are expected "
            f"of a series of {len(series)} steps; take shorter windows, or a longer series"
        )
    starts, ends = (0, fitted - num_steps, chosen - num_steps), (fitted, chosen, len(series))
    size = num_steps + ahead
    pieces = [
        np.lib.stride_tricks.sliding_window_view(series[start:end], size)
        for start, end in zip(starts, ends, strict=True)
    ]
    return Split(*(windows(piece, ahead) for piece in pieces))


def naive(inputs: Num[np.ndarray, "windows steps"], ahead: int) -> Num[np.ndarray, "windows ahead"]:
    """The last value, again and again."""
    return np.repeat(inputs[:, -1:], ahead, axis=1)


def seasonal_naive(
    series: Num[np.ndarray, " steps"], first_origin: int, ahead: int, period: int
) -> Num[np.ndarray, "origins ahead"]:
    """The value of a season before, for all origins from the first on that have all targets.

    Raises:
      ValueError: If there is no whole season before the first origin.
    """
    if not 0 < period <= first_origin + 1:
        raise ValueError(
            f"a period between 1 and {first_origin + 1} steps, which there are before the first "
            f"forecast, is expected, got {period}"
        )
    lead = np.arange(1, ahead + 1)
    origins = np.arange(first_origin, len(series) - ahead)[:, None]
    return series[origins + lead - period * -(-lead // period)]


def least_squares(
    inputs: Num[np.ndarray, "windows steps"], targets: Num[np.ndarray, "windows ahead"]
) -> Float[np.ndarray, "steps_and_one ahead"]:
    """The weights, and last the constants, of the best linear forecast of these windows."""
    return np.linalg.lstsq(_with_one(inputs), targets, rcond=None)[0]


def linear(
    weights: Float[np.ndarray, "steps_and_one ahead"], inputs: Num[np.ndarray, "windows steps"]
) -> Float[np.ndarray, "windows ahead"]:
    """The forecasts of a linear model."""
    return _with_one(inputs) @ weights


def _with_one(inputs: np.ndarray) -> np.ndarray:
    return np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
