"""The standard error of exponents covers, for noise, correlated growth and the Lorenz flow."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.signal import lfilter

from gradflow.flow.lyapunov.exponents import statistics
from gradflow.flow.lyapunov.growths import FrameOptions
from gradflow.flow.lyapunov.mean_error import WIDENING, standard_error_of_mean
from gradflow.tasks.flows import lorenz_slope, runge_kutta

NUM_STEPS = 1000


def coverage(growths, truth):
    """How often exponent ± 1.96 errors holds the truth, of growths (steps, runs)."""
    found = statistics(FrameOptions(None, 0, None, False), jnp.asarray(growths), len(growths))
    return float(jnp.mean(jnp.abs(found.exponents - truth) <= 1.96 * found.standard_error))


def autoregressive(coefficient, num_steps=NUM_STEPS, runs=3000):
    noise = np.random.default_rng(0).normal(size=(num_steps + 300, runs))
    return lfilter([1], [1, -coefficient], noise, axis=0)[300:]


@pytest.mark.parametrize("coefficient", [0.0, 0.5, 0.95])
def test_the_error_of_correlated_growth_covers(coefficient):
    assert 0.92 <= coverage(0.3 + autoregressive(coefficient), 0.3) <= 0.98


def test_the_error_of_differences_covers():
    changes = np.diff(np.random.default_rng(0).normal(size=(NUM_STEPS + 1, 3000)), axis=0)
    assert 0.92 <= coverage(changes, 0) <= 0.98


@functools.cache
def lorenz_growths():
    """Growths of 100 time units, of shape (exponent, steps, runs), by Gram and Schmidt."""

    def step(state, _):
        s, frame = state
        flow = lambda s: jax.lax.fori_loop(  # noqa: E731
            0, 2, lambda _, s: runge_kutta(lorenz_slope, s, 0.025), s
        )
        s, pushed = jax.vmap(lambda v: jax.jvp(flow, (s,), (v,)))(frame)
        rows, growths = [], []
        for row in pushed:
            for other in rows:
                row = row - (row @ other) * other
            growths.append(jnp.log(jnp.linalg.norm(row)))
            rows.append(row / jnp.linalg.norm(row))
        return (s[0], jnp.stack(rows)), jnp.stack(growths)

    def run(start):
        return jax.lax.scan(step, (start, jnp.eye(3)), None, length=2400)[1][400:]

    starts = np.array([0, 0, 25.0]) + 5 * np.random.default_rng(0).normal(size=(1500, 3))
    return np.moveaxis(np.asarray(jax.jit(jax.vmap(run))(jnp.asarray(starts))), 0, -1).swapaxes(
        0, 1
    )


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_error_of_the_lorenz_flow_covers(number):
    growths = lorenz_growths()[number]
    truth = growths.mean()  # of 150,000 time units
    assert truth / 0.05 == pytest.approx([0.906, 0, -14.57][number], abs=0.01)
    assert 0.90 <= coverage(growths, truth) <= 0.98
    batches = growths.reshape(40, 50, -1).mean(axis=1)  # what stood here before: √T of √T steps
    too_wide = np.median(batches.std(axis=0, ddof=1)) / np.sqrt(40) / growths.mean(axis=0).std()
    assert too_wide > 3


def test_batch_means_would_not_pass():
    growths = autoregressive(0.95)
    batches = growths[-31 * 32 :].reshape(31, 32, -1).mean(axis=1)
    error = batches.std(axis=0, ddof=1) / np.sqrt(31)
    assert np.mean(np.abs(growths.mean(axis=0)) <= 1.96 * error) < 0.88


def by_numpy(y):
    """The square root of the larger of the two variances, by Fourier sums and a fitted line."""
    T = len(y)
    t = np.arange(T) + 0.5
    waves = [wave(2 * np.pi * j * t / T) for j in range(1, 5) for wave in (np.cos, np.sin)]
    amplitudes = np.sqrt(2 / T) * np.array(waves) @ y
    jump = np.array([1, 0] * 4) / 2  # the direction of a difference between the ends, of length 1
    spectrum = (np.sum(amplitudes**2) - (jump @ amplitudes) ** 2) / 7
    u = np.cumsum(y - y.mean())
    left = u - np.polyval(np.polyfit(t, u, 1), t)
    return np.sqrt(max(WIDENING**2 * spectrum / T, 2 * np.mean(left**2) / T**2))


def test_it_is_what_numpy_finds_with_padding_or_without():
    rng = np.random.default_rng(0)
    series = np.stack([rng.normal(size=60), np.diff(rng.normal(size=61))], axis=1)
    expected = [by_numpy(y) for y in series.T]
    np.testing.assert_allclose(standard_error_of_mean(jnp.asarray(series), 60), expected, rtol=1e-9)
    padded = jnp.asarray(np.concatenate([series, np.full((7, 2), 5.0)]))
    found = jax.jit(standard_error_of_mean)(padded, 60)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_the_widening_is_student_s_quantile_over_the_normal_one():
    assert WIDENING == pytest.approx(stats.t.ppf(0.975, 7) / stats.norm.ppf(0.975), rel=1e-6)


def test_where_there_is_no_error_it_is_zero_or_nan():
    y = np.random.default_rng(0).normal(size=(9, 2))
    assert np.isnan(standard_error_of_mean(jnp.asarray(y), 8)).all()
    assert np.isfinite(standard_error_of_mean(jnp.asarray(y), 9)).all()
    y[3, 0] = -np.inf
    assert np.isnan(standard_error_of_mean(jnp.asarray(y), 9)).tolist() == [True, False]
    assert np.isnan(standard_error_of_mean(jnp.asarray(y), 0)).all()
    zeros = jnp.zeros((9, 2))
    gradient = jax.grad(lambda v: jnp.sum(standard_error_of_mean(v, 9)))(zeros)
    np.testing.assert_array_equal(gradient, 0)
    np.testing.assert_array_equal(standard_error_of_mean(zeros, 9), 0)
