"""How tables and sentences write a factor over many steps and a regime."""

import numpy as np
import pytest
from _kit import rates

from gradflow import flow


@pytest.mark.parametrize(
    ("log_factor", "text"),
    [
        (0.0, "1"),
        (np.log(0.0123), "0.012"),
        (-2000.0, "2.6e-869"),
        (2000.0, "3.9e+868"),
        (-np.inf, "0"),
        (np.nan, "nan"),
    ],
)
def test_a_factor_of_any_size(log_factor, text):
    assert rates.factor_text(log_factor) == text


@pytest.mark.parametrize(
    ("slopes", "text"),
    [
        ([-0.5, -0.5], "vanishing (below 1/10)"),
        ([0.5, 0.5], "exploding (above 10)"),
        ([0.0, 0.001], "stable (between 1/10 and 10)"),
        ([-1.0, 1.0], "inconclusive (not decided between 1/10 and 10)"),
        ([np.nan, np.nan], "undefined"),
    ],
)
def test_a_regime_names_its_threshold(slopes, text):
    found = flow.summary(np.multiply.outer(slopes, np.arange(21.0)))
    assert rates.regime(found) == text
    assert ("over 20 steps" in rates.row(found, 20)) and rates.row(found, 20)["regime"] == text


def test_crossings_are_found_between_the_gains():
    gains = np.array([1.0, 2.0, 3.0, 4.0])
    assert rates.crossing(gains, np.array([-2.0, -1.0, 3.0, 5.0])) == 2.25
    assert rates.crossing(gains, np.array([-np.inf, -np.inf, 3.0, -1.0])) == 3.0
    assert np.isnan(rates.crossing(gains, -gains))
    assert np.isnan(rates.crossing(gains, gains))
