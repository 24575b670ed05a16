"""What a set of curves comes to, against lines whose slope and shape are known."""

import inspect

import numpy as np
import pytest

from gradflow.flow.summary import horizons, summary
from gradflow.statistics import estimate, slope

LAGS = np.arange(101)
SLOPES = np.array([-0.11, -0.1, -0.09])


def test_lines_have_their_slope_half_life_and_horizon():
    found = summary(SLOPES[:, None] * LAGS)
    np.testing.assert_allclose(found.rate, -0.1, rtol=1e-12)
    half = 4.3027 * 0.01 / np.sqrt(3)  # Student's t with two degrees of freedom
    np.testing.assert_allclose(found.interval, [-0.1 - half, -0.1 + half], rtol=1e-4)
    np.testing.assert_allclose(found.half_life, np.log(2) / 0.1, rtol=1e-12)
    assert found.horizon == np.ceil(np.log(1e3) / 0.1)  # of the median
    assert found.regime == "vanishing"
    assert {found.dead_lag, found.nonfinite_lag, found.nonfinite_step} == {np.inf}


@pytest.mark.parametrize(
    ("slopes", "regime"),
    [
        (SLOPES, "vanishing"),
        (-SLOPES, "exploding"),
        ([0.009, 0.010, 0.011], "stable"),  # less than a factor of ten in all
        ([-0.3, 0.4], "inconclusive"),  # the interval holds both thresholds
        ([-0.01, -0.02, -0.03], "inconclusive"),  # the interval holds 1/10
        ([-0.024], "vanishing"),  # one curve has no interval
        ([0.022], "stable"),
    ],
)
def test_the_regime(slopes, regime):
    found = summary(np.multiply.outer(slopes, LAGS))
    assert found.regime == regime
    assert (found.half_life == np.inf) == (found.rate > 0)


@pytest.mark.parametrize(("lag", "regime"), [(28, "stable"), (41, "vanishing"), (500, "vanishing")])
def test_the_regime_is_about_the_needed_lag(lag, regime):
    """0.945 per step falls to 0.21 over 28 steps, and to 0.098 over 41."""
    found = summary(np.log(0.945) * LAGS, needed_lag=lag)
    assert (found.needed_lag, found.regime) == (lag, regime)
    np.testing.assert_allclose(found.log_change.value, lag * np.log(0.945), rtol=1e-10)
    by_default = summary(np.log(0.945) * LAGS[:29])
    assert (by_default.needed_lag, by_default.regime) == (28, "stable")


def test_the_change_has_the_interval_of_the_rate():
    found = summary(SLOPES[:, None] * LAGS, needed_lag=50)
    np.testing.assert_allclose(found.log_change, 50 * np.array([found.rate, *found.interval]))


def test_a_gradient_that_is_cut_before_the_needed_lag_vanishes():
    curve = np.where(LAGS < 60, 0.0, -np.inf)
    assert summary(curve).regime == "vanishing"
    assert summary(curve).log_change.value == -np.inf
    assert summary(curve, needed_lag=59).regime == "stable"
    assert summary(np.stack([curve, curve, 0 * LAGS])).regime == "vanishing"
    assert (
        summary(np.stack([curve, 0 * LAGS])).regime == "stable"
    )  # half of them are cut, and not most


def test_lag_0_does_not_count_where_the_blocks_share_nothing():
    curve = np.where(LAGS == 0, -np.inf, -0.1 * LAGS)
    found = summary(curve)
    assert (found.dead_lag, found.horizon, found.regime) == (np.inf, 70, "vanishing")
    np.testing.assert_allclose(found.rate, -0.1)
    assert horizons(np.array([-8.0, -9.0])) == 0


@pytest.mark.parametrize(("lag", "error"), [(0, ValueError), (2.5, TypeError)])
def test_a_needed_lag_is_a_lag(lag, error):
    with pytest.raises(error, match="Expected needed_lag to be"):
        inspect.unwrap(summary)(LAGS, needed_lag=lag)


def test_the_seed_is_the_unit_and_of_one_seed_the_sequence():
    slopes = np.array([[-0.11, -0.13], [-0.10, -0.08], [-0.08, -0.12]])
    curves = slopes[..., None] * LAGS
    found = summary(curves)
    np.testing.assert_allclose(found.interval, estimate(slopes.mean(axis=1))[1:], rtol=1e-10)
    np.testing.assert_allclose(found.rate, slopes.mean(), rtol=1e-10)
    one = summary(curves.reshape(1, 6, -1))
    np.testing.assert_allclose(one.interval, estimate(slopes.ravel())[1:], rtol=1e-10)
    assert one.interval == summary(curves.reshape(6, -1)).interval
    assert np.isnan(summary(curves[0, 0]).interval).all()


def test_the_decay_is_the_factor_per_step():
    curves = np.array([-0.2, -0.1, -0.3])[:, None] * np.arange(9)
    found = summary(curves)
    np.testing.assert_allclose(found.decay, np.exp([found.rate, *found.interval]), rtol=1e-14)
    assert f"{found.decay:.3f}" == f"{estimate(curves[:, 1]).map(np.exp):.3f}"


def test_its_text_has_the_regime_the_factor_and_the_horizon():
    assert repr(summary(-0.1 * LAGS)) == (
        "vanishing at lag 100: factor per step 0.9048, over 100 steps 4.5e-05; horizon 70"
    )
    shown = repr(summary(0.001 * SLOPES[:, None] * LAGS))
    assert shown.startswith("stable at lag 100: factor per step 0.9999 [0.9999, 0.9999], over")
    assert shown.endswith("horizon beyond the longest lag")


def test_each_curve_has_its_horizon():
    rows = [0.0, -2.3, -7.0, -9.2], [0.0, -0.7, -6.9, -1.2], [0.0, -0.7, -np.inf, np.nan]
    curves = np.array(rows)
    np.testing.assert_array_equal(horizons(curves), [2, np.inf, 2])


def test_the_first_dead_and_nonfinite_lags_are_reported():
    curves = SLOPES[:, None] * LAGS
    curves[0, 40:] = -np.inf
    curves[2, 60:] = np.nan
    found = summary(curves, nonfinite_steps=np.array([-1, -1, 17]))
    assert (found.dead_lag, found.nonfinite_lag, found.nonfinite_step) == (40, 60, 17)
    assert found.regime == "undefined"
    np.testing.assert_allclose(found.rate, -0.1, rtol=1e-12)  # of what is finite
    assert summary(curves[1], nonfinite_steps=0).nonfinite_step == 0


def test_a_curve_that_was_cut_at_once_has_no_slope():
    assert slope([0, -np.inf, -np.inf]) == -np.inf
    assert np.isnan(summary(np.array([[0, -np.inf], [0, -1.0]])).interval).all()


def test_a_single_lag_is_an_error():
    with pytest.raises(ValueError, match=r"two lags or more .* got shape \(1,\)\. Measure"):
        summary(np.zeros(1))
