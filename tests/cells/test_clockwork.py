"""The clockwork RNN against an integer clock, and the structure of its Jacobian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from oracle import assert_step_matches, random_state

from gradflow.cells.clockwork import ClockworkCarry, clockwork
from gradflow.cells.rnn import rnn
from gradflow.unroll import unroll

PERIODS = (2, 1, 3)
OF_UNIT = np.array([2, 2, 1, 1, 3])  # five units: the first two modules have one more


def update(params, h, x, ticking):
    """One step of Koutník's equations, unit by unit; `ticking` is whether each module is active."""
    new = []
    for i, period in enumerate(OF_UNIT):
        drive = sum(params["W_h"][i, j] * h[j] for j in range(5) if OF_UNIT[j] >= period)
        moved = np.tanh(drive + params["W_x"][i] @ x + params["b"][i])
        new.append(moved if ticking(period) else h[i])
    return np.array(new)


@pytest.mark.parametrize("input_size", [3, 0])
def test_step_equals_the_reference(input_size):
    def reference(params, carry, x):
        phase = {
            p: (int(np.round(now.real)) + 1) % p
            for p, now in zip(PERIODS, carry.phase, strict=True)
        }
        h = update(params, carry.h, x, lambda period: phase[period] == 0)
        return ClockworkCarry(h, np.array([float(phase[p]) for p in PERIODS]))

    assert_step_matches(clockwork(input_size, 5, periods=PERIODS), reference, input_size)


def test_run_equals_the_reference_with_an_integer_clock(key):
    cell = clockwork(2, 5, periods=PERIODS)
    params, carry, _ = random_state(cell, 2)
    inputs = jax.random.normal(key, (13, 2))
    h = carry.h
    run = unroll(cell, params, inputs, carry=carry._replace(phase=jnp.zeros(3)))
    numpy_params = jax.tree.map(np.asarray, params)
    for t, x in enumerate(np.asarray(inputs), start=1):
        h = update(numpy_params, h, x, lambda period, t=t: t % period == 0)
        np.testing.assert_allclose(run.outputs[t - 1], h, rtol=1e-12)
        np.testing.assert_array_equal(run.carries.phase[t], [t % p for p in PERIODS])


def test_inactive_modules_copy_their_units():
    cell = clockwork(2, 5, periods=PERIODS)
    params, carry, x = random_state(cell, 2)
    at_zero = carry._replace(phase=jnp.zeros(3))  # so that this is step 1, where only 1 ticks
    jacobian = jax.jacobian(lambda h: cell.step(params, at_zero._replace(h=h), x)[1])(carry.h)
    still = OF_UNIT > 1
    np.testing.assert_array_equal(jacobian[still], np.eye(5)[still])
    np.testing.assert_array_equal(cell.step(params, at_zero, x)[1][still], carry.h[still])
    assert (cell.step(params, at_zero, x)[1] != carry.h)[~still].all()


def test_slow_modules_do_not_depend_on_fast_ones():
    cell = clockwork(2, 5, periods=PERIODS)
    params, carry, x = random_state(cell, 2)
    tick = ClockworkCarry(carry.h, jnp.array([1.0, 0.0, 2.0]))  # all modules tick
    jacobian = jax.jacobian(lambda h: cell.step(params, tick._replace(h=h), x)[1])(carry.h)
    slower = OF_UNIT[:, None] > OF_UNIT[None, :]
    np.testing.assert_array_equal(jacobian[slower], 0)
    assert (jacobian[~slower] != 0).all()
    of_weights = jax.grad(lambda p: cell.step(p, tick, x)[1].sum())(params)["W_h"]
    np.testing.assert_array_equal(of_weights[slower], 0)
    assert (of_weights[~slower] != 0).all()


def test_initial_weights_are_those_of_the_vanilla_rnn_masked(key):
    clocked, plain = clockwork(2, 5, periods=PERIODS).init(key), rnn(2, 5).init(key)
    slower = OF_UNIT[:, None] > OF_UNIT[None, :]
    np.testing.assert_array_equal(clocked["W_h"], np.where(slower, 0, plain["W_h"]))
    np.testing.assert_array_equal(clocked["W_x"], plain["W_x"])


def test_clock_has_no_derivative(key):
    cell = clockwork(2, 5, periods=PERIODS)
    params, carry, x = random_state(cell, 2)
    flat, unravel = ravel_pytree(carry)
    step = lambda flat: ravel_pytree(cell.step(params, unravel(flat), x)[0])[0]  # noqa: E731
    for jacobian in (jax.jacrev(step)(flat), jax.jacfwd(step)(flat)):
        np.testing.assert_array_equal(jacobian[5:], 0)
        np.testing.assert_array_equal(jacobian[:, 5:], 0)
    # It is not cut off but zero: the phase is a step function of what it was.
    moved = carry._replace(phase=jnp.array([0.2, -0.4, 2.3]))
    exact = carry._replace(phase=jnp.array([0.0, 0.0, 2.0]))
    jax.tree.map(
        np.testing.assert_array_equal, cell.step(params, moved, x), cell.step(params, exact, x)
    )


def test_clock_is_exact_in_float32_at_any_length(key):
    periods = (3, 7, 1000)
    cell = clockwork(1, 3, periods=periods)
    params = jax.tree.map(jnp.float32, cell.init(key))
    carry = jax.tree.map(jnp.float32, cell.initial_carry())
    phases = unroll(cell, params, jnp.zeros((3000, 1), jnp.float32), carry=carry).carries.phase
    assert phases.dtype == jnp.float32
    np.testing.assert_array_equal(phases, np.arange(3001)[:, None] % np.array(periods))


def test_one_module_of_period_one_equals_the_vanilla_rnn(key):
    clock, plain = clockwork(2, 4, periods=(1,)), rnn(2, 4)
    params, inputs = plain.init(key), jax.random.normal(key, (10, 2))
    jax.tree.map(np.testing.assert_array_equal, clock.init(key), params)
    np.testing.assert_array_equal(
        unroll(clock, params, inputs).outputs, unroll(plain, params, inputs).outputs
    )
