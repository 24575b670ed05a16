"""Windows, splits and baseline forecasts against loops and published numbers."""

import numpy as np
import pytest

from gradflow.tasks import forecasting as f

SERIES = np.random.default_rng(0).normal(size=60).cumsum()


def test_naive_and_least_squares_forecasts_have_the_published_errors():
    train, valid = slice(0, 7000), slice(7000, 9000)
    for ahead, published, optimum in ((1, 0.020211367, 0.00293), (10, 0.25697407, 0.01549)):
        whole = f.windows(f.two_sines(10_000, 50 + ahead), ahead)
        x, y = whole.inputs.astype(float), whole.targets[:, -1].astype(float)
        error = np.mean((f.naive(x[valid], ahead) - y[valid]) ** 2)
        assert error == pytest.approx(published, abs=1e-7 * ahead)
        weights = f.least_squares(x[train], y[train])
        error = np.mean((f.linear(weights, x[valid]) - y[valid]) ** 2)
        assert error == pytest.approx(optimum, abs=6e-6)


def test_targets_are_the_values_after_each_step():
    inputs, targets = f.windows(np.array([[0, 1, 2, 3, 4, 5], [9, 8, 7, 6, 5, 4]]), 2)
    np.testing.assert_array_equal(inputs, [[0, 1, 2, 3], [9, 8, 7, 6]])
    np.testing.assert_array_equal(targets[0], [[1, 2], [2, 3], [3, 4], [4, 5]])
    for ahead in (0, 6):
        with pytest.raises(
            ValueError, match=f"Expected between 1 and 5 steps ahead .*, got {ahead}"
        ):
            f.windows(np.zeros((1, 6)), ahead)


def test_parts_of_a_series_have_disjoint_targets():
    parts = f.split_in_time(np.arange(100.0), 12, 3)
    behind = [part.targets[:, -1] for part in parts]
    for values, low, high in zip(behind, (12, 70, 80), (69, 79, 99), strict=True):
        assert (values.min(), values.max()) == (low, high)
    for part in parts:
        np.testing.assert_array_equal(part.inputs[:, -1] + 1, part.targets[:, -1, 0])
        assert part.inputs.shape[1] == 12
    with pytest.raises(
        ValueError, match="3 steps to forecast in each part after a window of 9, got 12"
    ):
        f.split_in_time(np.arange(12.0), 9, 3)


def test_seasonal_naive_repeats_the_last_known_period():
    found = f.seasonal_naive(SERIES, 20, 7, 3)
    for row, origin in zip(found, range(20, 53), strict=True):
        season = SERIES[origin - 2 : origin + 1]
        np.testing.assert_array_equal(row, np.tile(season, 3)[:7])
    with pytest.raises(ValueError, match="Expected a period between 1 and 21, .* got 22"):
        f.seasonal_naive(SERIES, 20, 7, 22)
