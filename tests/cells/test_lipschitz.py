"""The Lipschitz RNN against NumPy, and its spectrum as a function of beta and gamma."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import assert_step_matches, random_state

from gradflow.cells.antisymmetric import antisymmetric
from gradflow.cells.lipschitz import lipschitz


def shifted(M, beta, gamma):
    S = np.empty_like(M)
    for i in range(len(M)):
        for j in range(len(M)):
            S[i, j] = M[i, j] + (1 - 2 * beta) * M[j, i] - gamma * (i == j)
    return S


@pytest.mark.parametrize("beta, gamma", [(0.8, 0.01), (0.5, 0.3)])
def test_step_equals_the_reference(beta, gamma):
    def reference(p, h, x):
        A, W = shifted(p["M_A"], beta, gamma), shifted(p["M_W"], beta, gamma)
        return h + 0.2 * (A @ h + np.tanh(W @ h + p["W_x"] @ x + p["b"]))

    assert_step_matches(lipschitz(3, 4, eps=0.2, beta=beta, gamma=gamma), reference, 3)


def jacobian_at_the_origin(cell, params, n):
    at = jax.jacobian(lambda h: cell.step(params, h, jnp.zeros(2))[0])
    return np.asarray(at(jnp.zeros(n)))


def test_antisymmetric_matrices_give_the_eigenvalues_of_a_damped_rotation(key):
    eps, gamma = 0.1, 0.3
    cell = lipschitz(2, 6, eps=eps, beta=1.0, gamma=gamma)
    eigenvalues = np.linalg.eigvals(jacobian_at_the_origin(cell, cell.init(key), 6))
    np.testing.assert_allclose(eigenvalues.real, 1 - 2 * eps * gamma, rtol=1e-13)
    assert np.abs(eigenvalues.imag).min() > 1e-3


def test_symmetric_matrices_give_a_symmetric_jacobian_with_known_eigenvalues(key):
    eps, gamma = 0.1, 0.3
    cell = lipschitz(2, 6, eps=eps, beta=0.0, gamma=gamma)
    params = cell.init(key)
    jacobian = jacobian_at_the_origin(cell, params, 6)
    np.testing.assert_allclose(jacobian, jacobian.T, atol=1e-15)
    M = np.asarray(params["M_A"] + params["M_W"])
    expected = 1 + eps * (np.linalg.eigvalsh(M + M.T) - 2 * gamma)
    np.testing.assert_allclose(np.linalg.eigvalsh(jacobian), expected, rtol=1e-13)


def test_equals_the_antisymmetric_rnn_without_its_linear_part():
    cell = lipschitz(3, 4, eps=0.1, beta=1.0, gamma=0.0)
    params, h, x = random_state(cell, 3)
    params["M_A"] = jnp.zeros((4, 4))
    other = {"W_h": params["M_W"], "W_x": params["W_x"], "b": params["b"]}
    expected = antisymmetric(3, 4, eps=0.1, gamma=0.0).step(other, h, x)[0]
    np.testing.assert_allclose(cell.step(params, h, x)[0], expected, rtol=1e-14)


def test_recurrent_matrices_are_initialised_by_name(key):
    params = lipschitz(2, 4, recurrent_init={"A": "identity", "W": "identity(gain=0.5)"}).init(key)
    np.testing.assert_array_equal(params["M_A"], np.eye(4))
    np.testing.assert_array_equal(params["M_W"], 0.5 * np.eye(4))
