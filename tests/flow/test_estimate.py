"""A mean with its interval: its numbers, and how it is written."""

import numpy as np

from gradflow import flow


def test_an_estimate_is_the_statistic_and_its_bootstrap():
    values = np.array([1.0, 2.0, 4.0, 9.0])
    found = flow.estimate(values)
    assert found.value == 4 and (found.low, found.high) == flow.bootstrap(values)
    median = flow.estimate(values, np.median)
    assert median.value == 3 and (median.low, median.high) == flow.bootstrap(values, np.median)
    alone = flow.estimate(np.array([2.0]))
    assert alone.value == 2 and np.isnan([alone.low, alone.high]).all()


def test_it_is_written_in_the_format_of_a_number():
    found = flow.Estimate(0.5, -0.25, 1.0)
    assert f"{found:.2f}" == "0.50 [-0.25, 1.00]"
    assert f"{found:+.1f}" == "+0.5 [-0.2, +1.0]"
    assert f"{flow.Estimate(0.0, -0.001, 0.001):z.1f}" == "0.0 [0.0, 0.0]"
    assert found.map(np.exp) == (np.exp(0.5), np.exp(-0.25), np.e)


def test_the_decay_of_a_summary_is_the_factor_of_a_step():
    curves = np.array([-0.2, -0.1, -0.3])[:, None] * np.arange(9)
    found = flow.summary(curves)
    np.testing.assert_allclose(found.decay, np.exp([found.rate, *found.interval]), rtol=1e-14)
    assert f"{found.decay:.3f}" == f"{flow.estimate(curves[:, 1]).map(np.exp):.3f}"
