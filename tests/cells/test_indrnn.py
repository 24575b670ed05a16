"""The IndRNN against NumPy, and its diagonal Jacobian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import assert_step_matches, random_state

from gradflow.cells.indrnn import indrnn
from gradflow.unroll import unroll


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_step_equals_the_reference(activation):
    def reference(p, h, x):
        a = p["W_x"] @ x + p["u"] * h + p["b"]
        return np.tanh(a) if activation == "tanh" else np.where(a.real > 0, a, 0)

    assert_step_matches(indrnn(3, 4, activation=activation), reference, 3)


def test_step_jacobian_is_the_slope_times_the_recurrent_weight():
    cell = indrnn(3, 4, activation="tanh")
    params, h, x = random_state(cell, 3)
    jacobian = jax.jacobian(lambda h: cell.step(params, h, x)[0])(h)
    slope = 1 - cell.step(params, h, x)[0] ** 2
    np.testing.assert_allclose(jacobian, np.diag(slope * params["u"]), atol=1e-15)


def test_an_active_relu_multiplies_the_gradient_by_its_weight_at_every_step(key):
    cell = indrnn(2, 3, recurrent_low=0.9, recurrent_high=1.1)
    params = cell.init(key) | {"b": jnp.full(3, 5.0), "W_x": jnp.zeros((3, 2))}
    inputs = jnp.zeros((30, 2))
    end = jax.jacobian(lambda s: unroll(cell, params, inputs, carry=s).outputs[-1])(jnp.ones(3))
    np.testing.assert_allclose(end, np.diag(params["u"] ** 30), rtol=1e-13, atol=0)


def test_initial_recurrent_weights_are_uniform_between_their_bounds(key):
    u = indrnn(2, 4000, recurrent_low=-0.5, recurrent_high=1.5).init(key)["u"]
    counts, _ = np.histogram(u, bins=4, range=(-0.5, 1.5))
    # A quarter of 4000 numbers each, give or take 27.
    assert counts.sum() == 4000 and np.all(np.abs(counts - 1000) < 140)


def test_equal_bounds_give_every_unit_the_same_weight(key):
    u = indrnn(2, 5, recurrent_low=1.0, recurrent_high=1.0).init(key)["u"]
    np.testing.assert_array_equal(u, 1)
