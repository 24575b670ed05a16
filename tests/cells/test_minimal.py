"""The cells with one gate against their equations, and the limit of a closed gate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import assert_step_matches, random_state, sigmoid

from gradflow.cells.minimal import mgu, minimal_rnn, ugrnn
from gradflow.unroll import unroll


def affine(p, h, x):
    return p["W_x"] @ x + p["W_h"] @ h + p["b"]


def mgu_reference(params, h, x):
    f = sigmoid(affine(params["f"], h, x))
    return h + f * (np.tanh(affine(params["n"], f * h, x)) - h)


def ugrnn_reference(params, h, x):
    g = sigmoid(affine(params["g"], h, x))
    return g * h + (1 - g) * np.tanh(affine(params["c"], h, x))


def minimal_rnn_reference(params, h, x):
    z = np.tanh(params["z"]["W_x"] @ x + params["z"]["b"])
    u = sigmoid(params["u"]["W_h"] @ h + params["u"]["W_z"] @ z + params["u"]["b"])
    return u * h + (1 - u) * z


CELLS = [(mgu, mgu_reference), (ugrnn, ugrnn_reference), (minimal_rnn, minimal_rnn_reference)]


@pytest.mark.parametrize("input_size", [3, 0])
@pytest.mark.parametrize("factory, reference", CELLS)
def test_step_equals_the_reference(factory, reference, input_size):
    assert_step_matches(factory(input_size, 4), reference, input_size)


@pytest.mark.parametrize("factory, gate, shut", [(mgu, "f", -60), (ugrnn, "g", 60)])
def test_closed_gate_copies_the_state(factory, gate, shut):
    cell = factory(3, 4)
    params, h, x = random_state(cell, 3)
    params[gate] |= {"b": jnp.full(4, float(shut))}
    np.testing.assert_allclose(cell.step(params, h, x)[0], h, rtol=1e-14)
    jacobian = jax.jacobian(lambda h: cell.step(params, h, x)[0])(h)
    np.testing.assert_allclose(jacobian, np.eye(4), atol=1e-14)


@pytest.mark.parametrize("factory", [mgu, ugrnn, minimal_rnn])
def test_state_is_an_average_of_candidates(key, factory):
    cell = factory(2, 4)
    params = random_state(cell, 2)[0]
    run = unroll(cell, params, 20 * jax.random.normal(key, (30, 2)))
    assert 0.9 < jnp.abs(run.outputs).max() <= 1


def test_step_jacobian_of_the_minimal_rnn_equals_the_documented_equation():
    cell = minimal_rnn(3, 4)
    params, h, x = random_state(cell, 3)
    gates = cell.gates(params, h, x)
    u, z = np.asarray(gates["u"]), np.asarray(gates["z"])
    expected = np.diag(u) + np.diag((h - z) * u * (1 - u)) @ params["u"]["W_h"]
    jacobian = jax.jacobian(lambda h: cell.step(params, h, x)[0])(h)
    np.testing.assert_allclose(jacobian, expected, rtol=1e-12)


def test_matrices_of_the_minimal_rnn_use_the_given_initialisers(key):
    cell = minimal_rnn(3, 3, recurrent_init="orthogonal(gain=2.0)", input_init="identity(gain=5.0)")
    params = cell.init(key)
    W_h = params["u"]["W_h"]
    np.testing.assert_allclose(W_h @ W_h.T, 4 * np.eye(3), atol=1e-13)
    np.testing.assert_array_equal(params["u"]["W_z"], 5 * np.eye(3))
    np.testing.assert_array_equal(params["z"]["W_x"], 5 * np.eye(3))
