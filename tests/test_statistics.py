"""Intervals cover what they say, by simulation; and the other statistics of repeated runs."""

import numpy as np
import pytest
from scipy import special, stats

from gradflow import statistics
from gradflow.flow.summary import summary

SAMPLES = 200_000
"""With so many a coverage of 0.95 has a standard error of 0.0005."""


def coverage(ends, truth):
    low, high = ends
    return float(np.mean((low <= truth) & (truth <= high)))


def normal(count, samples=SAMPLES):
    return np.random.default_rng(count).normal(size=(samples, count))


@pytest.mark.parametrize("count", [5, 8, 16])
def test_the_interval_of_a_mean_covers_normal_values(count):
    assert 0.93 <= coverage(statistics.mean_interval(normal(count)), 0) <= 0.97


@pytest.mark.parametrize("count", [5, 8, 16])
@pytest.mark.parametrize("sigma", [0.5, 1.0])
def test_the_interval_of_a_mean_covers_lognormal_values(count, sigma):
    values, truth = np.exp(sigma * normal(count)), np.exp(sigma**2 / 2)
    assert 0.90 <= coverage(statistics.mean_interval(values), truth) <= 0.98
    assert 0.90 <= coverage(statistics.mean_interval(-values), -truth) <= 0.98


@pytest.mark.parametrize("count", [2, 3])
def test_of_two_or_three_values_it_is_student_s(count):
    values = normal(count, 20_000)
    assert 0.945 <= coverage(statistics.mean_interval(values), 0) <= 0.955
    expected = stats.t.interval(
        0.95, count - 1, loc=values.mean(1), scale=stats.sem(values, axis=1)
    )
    np.testing.assert_allclose(statistics.mean_interval(values), expected, rtol=1e-9)


def slopes_of_clusters(count, samples):
    """Slopes of 16 sequences a seed, which have their seed's deviation in common: (..., 16)."""
    rng = np.random.default_rng(count)
    seeds = rng.normal(size=(samples, count, 1))
    return seeds + 0.5 * rng.normal(size=(samples, count, 16))


@pytest.mark.parametrize("count", [5, 8, 16])
def test_the_rate_of_a_summary_covers_sequences_that_are_nested_in_seeds(count):
    slopes = slopes_of_clusters(count, 40_000)
    low, high = statistics.mean_interval(slopes.mean(axis=-1))
    assert 0.93 <= coverage((low, high), 0) <= 0.97
    found = summary(slopes[0, ..., None] * np.arange(2)).interval
    np.testing.assert_allclose(found, (low[0], high[0]), rtol=1e-9)


@pytest.mark.parametrize("count", [5, 8, 16])
def test_percentiles_of_resamples_and_flattened_clusters_would_not_pass(count):
    values = normal(count, 4000)
    places = np.random.default_rng(0).integers(count, size=(400, count))
    means = values[:, places].mean(axis=-1)
    assert coverage(np.quantile(means, [0.025, 0.975], axis=1), 0) < 0.93
    flat = slopes_of_clusters(count, 4000).reshape(4000, -1)
    assert coverage(statistics.mean_interval(flat), 0) < 0.6


def by_willink(values):
    """The ends of Willink's interval, with his own formula, of one set of values."""
    count, mean, spread = len(values), np.mean(values), np.std(values, ddof=1)
    third = count * np.sum((values - mean) ** 3) / ((count - 1) * (count - 2))
    a = statistics.SKEWNESS_FACTOR * third / (6 * np.sqrt(count) * spread**3)
    t = special.stdtrit(count - 1, 0.975)
    ends = [(np.cbrt(1 + 6 * a * (r - a)) - 1) / (2 * a) for r in (t, -t)]
    return [mean - spread / np.sqrt(count) * end for end in ends], t * spread / np.sqrt(count)


def test_the_ends_are_the_outer_ones_of_student_and_willink():
    values = np.array([1.0, 2.0, 4.0, 9.0, 30.0])
    (low, high), half = by_willink(values)
    assert high > values.mean() + half and low > values.mean() - half  # towards the long tail
    found = statistics.interval(values)
    np.testing.assert_allclose(found, [values.mean() - half, high], rtol=1e-12)
    np.testing.assert_allclose(statistics.interval(-values), [-found[1], -found[0]], rtol=1e-12)
    np.testing.assert_allclose(statistics.interval(7 + 3e9 * values), 7 + 3e9 * np.array(found))
    symmetric = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    half = special.stdtrit(4, 0.975) * np.std(symmetric, ddof=1) / np.sqrt(5)
    np.testing.assert_allclose(statistics.interval(symmetric), [-half, half], rtol=1e-12)


def test_without_two_finite_values_there_is_no_interval():
    for values in ([2.0], [1.0, np.nan, 2.0], [1.0, -np.inf, 2.0], []):
        assert np.isnan(statistics.interval(np.array(values))).all()
    assert statistics.interval(np.full(6, 0.1)) == pytest.approx((0.1, 0.1), rel=1e-15)
    assert statistics.interval(np.full(6, 0.1), np.median) == (0.1, 0.1)


def test_the_interval_of_another_statistic_covers():
    middle = lambda values: np.partition(values, 4)[4]  # noqa: E731
    values = normal(9, 500)
    ends = np.array([statistics.interval(row, middle) for row in values]).T
    assert 0.93 <= coverage(ends, 0) <= 0.99
    assert statistics.interval(values[0], middle) == tuple(ends[:, 0])  # the same again


def test_an_estimate_is_the_statistic_and_its_interval():
    values = np.array([1.0, 2.0, 4.0, 9.0])
    found = statistics.estimate(values)
    assert found.value == 4 and (found.low, found.high) == statistics.interval(values)
    median = statistics.estimate(values, np.median)
    assert median.value == 3 and (median.low, median.high) == statistics.interval(values, np.median)
    alone = statistics.estimate(np.array([2.0]))
    assert alone.value == 2 and np.isnan([alone.low, alone.high]).all()


def test_it_is_written_in_the_format_of_a_number():
    found = statistics.Estimate(0.5, -0.25, 1.0)
    assert f"{found:.2f}" == "0.50 [-0.25, 1.00]"
    assert f"{found:+.1f}" == "+0.5 [-0.2, +1.0]"
    assert f"{statistics.Estimate(0.0, -0.001, 0.001):z.1f}" == "0.0 [0.0, 0.0]"
    assert found.map(np.exp) == (np.exp(0.5), np.exp(-0.25), np.e)


def squared_errors(rng, num_origins):
    """Squared errors over 10 steps of two models with shocks in common, 0.8 apart in the mean."""
    shocks = rng.normal(size=(2, num_origins + 9))
    models = shocks[0], 0.5 * shocks[0] + shocks[1]
    return [np.convolve(model**2, np.full(10, 0.1), mode="valid") for model in models]


@pytest.mark.parametrize("num_origins", [200, 600])
def test_the_block_bootstrap_covers_the_ratio_of_correlated_errors(num_origins):
    rng = np.random.default_rng(num_origins)
    pairs = [squared_errors(rng, num_origins) for _ in range(400)]
    ends = np.array([statistics.block_bootstrap(*pair, 40) for pair in pairs]).T
    assert 0.92 <= coverage(ends, 0.8) <= 0.99


def test_the_block_bootstrap_draws_both_errors_together_and_in_blocks():
    rng = np.random.default_rng(0)
    errors = np.cumsum(rng.normal(size=60)) ** 2 + 1
    assert statistics.block_bootstrap(2 * errors, errors, 5) == pytest.approx((2, 2))
    ones = np.ones_like(errors)
    low, high = statistics.block_bootstrap(errors, ones, 1)
    assert low < errors.mean() < high
    slow = statistics.block_bootstrap(errors, ones, 12)  # errors of a random walk stay alike
    assert np.log(slow[1] / slow[0]) > 1.5 * np.log(high / low)
    draws = np.random.default_rng(1).choice(errors, (1000, len(errors))).mean(axis=1)
    half = special.stdtrit(59, 0.975) * np.sqrt(60 / 59) * np.std(np.log(draws))
    assert np.log(high / low) == pytest.approx(2 * half, rel=0.1)
    assert np.isfinite(statistics.block_bootstrap(errors, ones, 30)).all()
    assert np.isnan(statistics.block_bootstrap(errors, ones, 31)).all()


def test_a_slope_is_that_of_the_finite_points():
    assert statistics.slope([0, -1, -2, -np.inf]) == pytest.approx(-1)
    assert statistics.slope([3.0, np.nan, 7.0]) == pytest.approx(2)
    assert statistics.slope([0, -np.inf, -np.inf]) == -np.inf
