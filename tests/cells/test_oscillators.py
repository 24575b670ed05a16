"""The oscillatory RNNs against NumPy, their published bounds and their symplectic structure."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from oracle import assert_step_matches, random_state

from gradflow.cells.oscillators import OscillatorCarry, cornn, unicornn
from gradflow.testing import check_cell
from gradflow.unroll import unroll


def carry_jacobian(cell, params, carry, x):
    flat, unravel = ravel_pytree(carry)
    step = lambda s: ravel_pytree(cell.step(params, unravel(s), x)[0])[0]  # noqa: E731
    return np.asarray(jax.jacobian(step)(flat))


def test_explicit_cornn_equals_the_reference():
    dt, gamma, epsilon = 0.2, 2.7, 4.7

    def reference(p, carry, x):
        y, z = carry
        a = p["W_y"] @ y + p["W_z"] @ z + p["W_x"] @ x + p["b"]
        z_new = z + dt * np.tanh(a) - dt * gamma * y - dt * epsilon * z
        return OscillatorCarry(y + dt * z_new, z_new)

    cell = cornn(3, 4, dt=dt, gamma=gamma, epsilon=epsilon, damping="explicit")
    assert_step_matches(cell, reference, 3)


def test_implicit_cornn_equals_the_reference():
    dt, gamma, epsilon = 0.2, 2.7, 4.7

    def reference(p, carry, x):
        # The linear system (1 + dt epsilon) z_t = right, y_t - dt z_t = y_{t-1}.
        y, z = carry
        right = z + dt * np.tanh(p["W_y"] @ y + p["W_z"] @ z + p["W_x"] @ x + p["b"])
        system = np.kron([[1, -dt], [0, 1 + dt * epsilon]], np.eye(4))
        return np.split(np.linalg.inv(system) @ np.concatenate([y, right - dt * gamma * y]), 2)

    cell = cornn(3, 4, dt=dt, gamma=gamma, epsilon=epsilon, damping="implicit")
    assert_step_matches(cell, lambda *args: OscillatorCarry(*reference(*args)), 3)


def test_unicornn_equals_the_reference():
    dt, alpha = 0.4, 1.7

    def reference(p, carry, x):
        y, z = carry
        d = dt * (0.5 + 0.5 * np.tanh(p["c"] / 2))
        z_new = z - d * (np.tanh(p["w"] * y + p["W_x"] @ x + p["b"]) + alpha * y)
        return OscillatorCarry(y + d * z_new, z_new)

    assert_step_matches(unicornn(3, 4, dt=dt, alpha=alpha), reference, 3)


def test_energy_of_cornn_grows_at_most_by_its_forcing():
    dt, size = 0.3, 5
    cell = cornn(2, size, dt=dt, epsilon=(1 + dt) / 2)
    params = jax.tree.map(lambda leaf: 3 * leaf, random_state(cell, 2)[0])
    inputs = 5 * jax.random.normal(jax.random.key(1), (30, 2))
    carries = unroll(cell, params, inputs).carries
    energy = np.sum(carries.y**2 + carries.z**2, axis=1)
    assert energy.max() > 0.1
    assert np.all(np.diff(energy) <= size * dt)


@pytest.mark.parametrize("r", [0.5, 1.0])
def test_gradient_of_cornn_is_within_its_published_bound(r):
    dt = 0.02
    cell = cornn(2, 4, dt=dt)
    params = random_state(cell, 2)[0]
    limit = dt**r * (1 + dt) / dt  # of 1 + ‖W_y‖ and ‖W_z‖, by the largest row sum

    def scaled_to(W, norm):
        return W * (norm / np.abs(W).sum(axis=1).max())

    params["W_y"] = scaled_to(params["W_y"], limit - 1)
    params["W_z"] = scaled_to(params["W_z"], limit)
    inputs = jax.random.normal(jax.random.key(1), (20, 2))
    carries = unroll(cell, params, inputs).carries
    for t, x in enumerate(inputs):
        jacobian = carry_jacobian(cell, params, jax.tree.map(lambda s, t=t: s[t], carries), x)
        norm = np.abs(jacobian).sum(axis=1).max()
        assert 1 < norm <= 1 + 3 * dt**r


@pytest.mark.parametrize("alpha", [0.0, 2.0])
def test_step_of_unicornn_is_symplectic(alpha):
    cell = unicornn(3, 4, dt=0.7, alpha=alpha)
    jacobian = carry_jacobian(cell, *random_state(cell, 3))
    omega = np.kron([[0, 1], [-1, 0]], np.eye(4))
    np.testing.assert_allclose(jacobian.T @ omega @ jacobian, omega, atol=1e-14)
    np.testing.assert_allclose(np.linalg.det(jacobian), 1, rtol=1e-13)
    assert np.linalg.norm(jacobian.T @ jacobian - np.eye(8)) > 0.1  # symplectic, not orthogonal


def test_units_of_unicornn_are_not_coupled():
    cell = unicornn(3, 4)
    jacobian = carry_jacobian(cell, *random_state(cell, 3))
    np.testing.assert_array_equal(jacobian * np.kron(np.ones((2, 2)), 1 - np.eye(4)), 0)


def test_initial_parameters_of_unicornn_follow_their_distributions(key):
    params = unicornn(2, 4000).init(key)
    for values, bounds in ((params["w"], (0, 1)), (params["c"], (-0.1, 0.1))):
        counts, _ = np.histogram(values, bins=4, range=bounds)
        # A quarter of 4000 numbers each, give or take 27.
        assert counts.sum() == 4000 and np.all(np.abs(counts - 1000) < 140)


def test_recurrent_matrices_of_cornn_are_initialised_by_name(key):
    params = cornn(2, 4, recurrent_init={"y": "identity", "z": "identity(gain=0.5)"}).init(key)
    np.testing.assert_array_equal(params["W_y"], np.eye(4))
    np.testing.assert_array_equal(params["W_z"], 0.5 * np.eye(4))


@pytest.mark.parametrize("factory", [cornn, unicornn])
def test_hidden_state_is_the_position(factory):
    cell = factory(3, 4)
    carry, h = cell.step(*random_state(cell, 3))
    np.testing.assert_array_equal(h, carry.y)
    np.testing.assert_array_equal(cell.hidden(OscillatorCarry(jnp.ones(4), jnp.zeros(4))), 1)


def test_explicit_damping_satisfies_the_cell_contract():
    check_cell(functools.partial(cornn, damping="explicit"))
