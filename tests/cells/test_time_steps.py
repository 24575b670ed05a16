"""The initial time steps of state-space models: their distribution and their range."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradflow.cells import CELLS
from gradflow.cells.time_steps import init_dt_bias, init_log_dt

BOUNDS = pytest.mark.parametrize("bounds", [(0.001, 0.1), (1e-7, 50.0)])
X64 = pytest.mark.parametrize("x64", [True, False])


def assert_uniform(values, low, high):
    counts, _ = np.histogram(values, bins=4, range=(low - 1e-6, high + 1e-6))
    # A quarter of 4000 numbers each, give or take 27.
    assert counts.sum() == 4000 and np.all(np.abs(counts - 1000) < 140)


@BOUNDS
@X64
def test_time_steps_are_log_uniform(x64, bounds, key):
    with jax.enable_x64(x64):
        log_dt = init_log_dt(key, 4000, *bounds)
    assert log_dt.dtype == (jnp.float64 if x64 else jnp.float32)
    assert_uniform(log_dt, *np.log(bounds))


@BOUNDS
@X64
def test_the_softplus_of_the_bias_is_log_uniform(x64, bounds, key):
    with jax.enable_x64(x64):
        b = init_dt_bias(key, 4000, *bounds)
        dt = jax.nn.softplus(b)
    assert b.dtype == (jnp.float64 if x64 else jnp.float32)
    assert_uniform(np.log(dt), *np.log(bounds))


@pytest.mark.parametrize("dt", [1e-7, 500.0])
def test_the_bias_of_an_extreme_time_step_keeps_its_digits(dt, key):
    with jax.enable_x64(False):
        b = init_dt_bias(key, 1, dt, dt)
    np.testing.assert_allclose(np.logaddexp(0, np.float64(b)), dt, rtol=1e-5)


@pytest.mark.parametrize("name", ["s4d", "s5", "mamba", "mamba2"])
def test_the_initial_time_steps_of_a_cell_are_in_the_given_range(name, key):
    params = CELLS[name](2, 4, dt_min=0.3, dt_max=0.3).init(key)
    dt = np.exp(params["log_dt"]) if "log_dt" in params else np.log1p(np.exp(params["b_dt"]))
    np.testing.assert_allclose(dt, 0.3, rtol=1e-13)
