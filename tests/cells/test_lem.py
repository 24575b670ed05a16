"""The LEM against NumPy, and the effect of its learnt time steps on the gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from oracle import assert_step_matches, random_state, sigmoid

from gradflow.cells.lem import LEMCarry, lem
from gradflow.unroll import unroll


@pytest.mark.parametrize("dt", [1.0, 0.3])
def test_step_equals_the_reference(dt):
    def reference(p, carry, x):
        def a(q, state):
            return p[q]["W_x"] @ x + p[q]["W_h"] @ state + p[q]["b"]

        d, e = dt * sigmoid(a("d", carry.y)), dt * sigmoid(a("e", carry.y))
        z = (1 - d) * carry.z + d * np.tanh(a("z", carry.y))
        y = (1 - e) * carry.y + e * np.tanh(a("y", z))
        return LEMCarry(y, z)

    assert_step_matches(lem(3, 4, dt=dt), reference, 3)


def test_derivative_of_z_by_z_is_one_minus_its_time_step():
    cell = lem(3, 4, dt=0.8)
    params, carry, x = random_state(cell, 3)
    jacobian = jax.jacobian(lambda z: cell.step(params, carry._replace(z=z), x)[0].z)(carry.z)
    assert cell.gates is not None
    d = 0.8 * cell.gates(params, carry, x)["d"]
    np.testing.assert_allclose(jacobian, np.diag(1 - d), atol=1e-15)


def test_states_stay_between_minus_one_and_one():
    cell = lem(2, 4)
    params = jax.tree.map(lambda leaf: 5 * leaf, random_state(cell, 2)[0])
    inputs = 10 * jax.random.normal(jax.random.key(1), (30, 2))
    carries = unroll(cell, params, inputs).carries
    largest = max(np.abs(carries.y).max(), np.abs(carries.z).max())
    assert 0.9 < largest <= 1


def test_jacobian_is_the_identity_to_first_order_in_the_time_step():
    def distance(dt):
        cell = lem(3, 4, dt=dt)
        params, carry, x = random_state(cell, 3)
        flat, unravel = ravel_pytree(carry)
        step = lambda s: ravel_pytree(cell.step(params, unravel(s), x)[0])[0]  # noqa: E731
        return np.linalg.norm(jax.jacobian(step)(flat) - np.eye(8))

    np.testing.assert_allclose(distance(1e-6) / distance(1e-7), 10, rtol=1e-5)


def test_gates_equal_the_reference():
    cell = lem(3, 4, dt=0.3)
    params, carry, x = random_state(cell, 3)
    assert cell.gates is not None
    gates = cell.gates(params, carry, x)
    assert set(gates) == {"d", "e"}
    for gate, value in gates.items():
        p = params[gate]
        expected = sigmoid(p["W_x"] @ x + p["W_h"] @ carry.y + p["b"])
        np.testing.assert_allclose(value, expected, rtol=1e-14)


def test_hidden_state_is_y():
    cell = lem(3, 4)
    carry, h = cell.step(*random_state(cell, 3))
    np.testing.assert_array_equal(h, carry.y)
    np.testing.assert_array_equal(cell.hidden(LEMCarry(jnp.ones(4), jnp.zeros(4))), 1)
