"""The chaotic series against other integrators, and forecasts of them."""

import jax
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from gradflow.tasks import resolve_task
from gradflow.tasks.flows import lorenz_series, mackey_glass_history, mackey_glass_series


def lorenz(time, state):
    x, y, z = state
    return [10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z]


def test_lorenz_samples_follow_the_flow(key):
    series = np.asarray(lorenz_series(key, 4, 3))
    for b in range(3):
        for before, after in zip(series[:-1, b], series[1:, b], strict=True):
            exact = solve_ivp(lorenz, (0, 0.1), before, rtol=1e-10, atol=1e-10).y[:, -1]
            np.testing.assert_allclose(after, exact, atol=2e-4)
    assert np.ptp(series, axis=1).min() > 0.1  # the trajectories are different ones


def integrate(history, refine, num_units):
    """Mackey–Glass by ``refine`` steps in 0.1, with the whole past in a list."""
    grid = np.arange(history.shape[0])
    fine = np.linspace(0, grid[-1], refine * grid[-1] + 1)
    x = [np.array(v) for v in zip(*(np.interp(fine, grid, h) for h in history.T), strict=True)]
    dt, delay = 0.1 / refine, 170 * refine

    def slope(now, past):
        return 0.2 * past / (1 + past**10) - 0.1 * now

    for n in range(delay, delay + 10 * refine * num_units):
        past, after = x[n - delay], x[n - delay + 1]
        a = slope(x[n], past)
        b = slope(x[n] + dt / 2 * a, (past + after) / 2)
        c = slope(x[n] + dt / 2 * b, (past + after) / 2)
        x.append(x[n] + dt / 6 * (a + 2 * b + 2 * c + slope(x[n] + dt * c, after)))
    return np.array(x[delay + 10 * refine :: 10 * refine])


def test_mackey_glass_solves_the_delay_equation(key):
    series = np.asarray(mackey_glass_series(key, 20, 3))[..., 0]
    history = np.asarray(mackey_glass_history(jax.random.split(key)[0], 3))
    same, finer = integrate(history, 1, 420), integrate(history, 4, 420)
    waits = [int(np.abs(same[300:400, b] - series[0, b]).argmin()) for b in range(3)]
    assert len(set(waits)) == 3
    for b, wait in enumerate(waits):
        rows = slice(300 + wait, 320 + wait)
        np.testing.assert_allclose(series[:, b], same[rows, b], atol=1e-9)
        np.testing.assert_allclose(series[:, b], finer[rows, b], atol=1e-3)


@pytest.mark.parametrize("spec", ["lorenz(num_steps=6, horizon=2, washout=1, observed='xyz')"])
def test_targets_are_later_values_of_the_series(spec, key):
    task = resolve_task(spec)
    batch = task.sample(key, 2)
    np.testing.assert_array_equal(batch.targets[:-2], batch.inputs[2:])
    np.testing.assert_array_equal(batch.weights, np.repeat([[0], [1], [1], [1], [1], [1]], 2, 1))
    shifted = batch.targets + np.array([0.099, 0.101])[:, None]
    np.testing.assert_array_equal(task.correct(shifted, batch), [True, False])


def test_observing_x_gives_the_first_of_all_coordinates(key):
    options = "num_steps=3, washout=0"
    x = resolve_task(f"lorenz({options})").sample(key, 2)
    xyz = resolve_task(f"lorenz({options}, observed='xyz')").sample(key, 2)
    np.testing.assert_array_equal(x.inputs, xyz.inputs[..., :1])
    with pytest.raises(ValueError, match="Expected observed to be 'x' or 'xyz', got 'y'"):
        jax.eval_shape(lambda: resolve_task("lorenz(observed='y')"))
