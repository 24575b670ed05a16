"""The AntisymmetricRNNs against NumPy, and the spectrum of their step Jacobian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import assert_step_matches, random_state, sigmoid

from gradflow.cells.antisymmetric import antisymmetric, gated_antisymmetric

FACTORIES = [antisymmetric, gated_antisymmetric]


def field(W, h, gamma):
    """(W - Wᵀ - gamma I) h, entry by entry."""
    return np.array(
        [
            sum((W[i, j] - W[j, i] - gamma * (i == j)) * h[j] for j in range(len(h)))
            for i in range(len(h))
        ]
    )


@pytest.mark.parametrize("eps, gamma", [(0.1, 0.01), (0.5, 0.0)])
def test_antisymmetric_equals_the_reference(eps, gamma):
    def reference(p, h, x):
        return h + eps * np.tanh(field(p["W_h"], h, gamma) + p["W_x"] @ x + p["b"])

    assert_step_matches(antisymmetric(3, 4, eps=eps, gamma=gamma), reference, 3)


@pytest.mark.parametrize("eps, gamma", [(0.1, 0.01), (0.5, 0.0)])
def test_gated_antisymmetric_equals_the_reference(eps, gamma):
    def reference(p, h, x):
        a = field(p["W_h"], h, gamma)
        z = sigmoid(a + p["z"]["W_x"] @ x + p["z"]["b"])
        return h + eps * z * np.tanh(a + p["h"]["W_x"] @ x + p["h"]["b"])

    assert_step_matches(gated_antisymmetric(3, 4, eps=eps, gamma=gamma), reference, 3)


@pytest.mark.parametrize("factory, slope", [(antisymmetric, 1.0), (gated_antisymmetric, 0.5)])
def test_eigenvalues_at_the_origin_are_one_less_the_diffusion_and_imaginary(factory, slope, key):
    # At h = x = b = 0 tanh has slope 1 and the gate is 1/2.
    eps, gamma = 0.2, 0.03
    cell = factory(2, 6, eps=eps, gamma=gamma)
    params = cell.init(key)
    jacobian = jax.jacobian(lambda h: cell.step(params, h, jnp.zeros(2))[0])(jnp.zeros(6))
    eigenvalues = np.linalg.eigvals(jacobian)
    W = np.asarray(params["W_h"])
    omega = np.linalg.eigvalsh(1j * (W - W.T))
    np.testing.assert_allclose(eigenvalues.real, 1 - slope * eps * gamma, rtol=1e-13)
    np.testing.assert_allclose(np.sort(eigenvalues.imag), slope * eps * omega, atol=1e-13)


@pytest.mark.parametrize("factory", FACTORIES)
def test_step_ignores_the_symmetric_part_of_the_matrix(factory, key):
    cell = factory(3, 4)
    params, h, x = random_state(cell, 3)
    other = jax.random.normal(key, (4, 4))
    shifted = params | {"W_h": params["W_h"] + other + other.T}
    np.testing.assert_allclose(cell.step(shifted, h, x)[0], cell.step(params, h, x)[0], rtol=1e-13)


def test_a_closed_gate_copies_the_state():
    cell = gated_antisymmetric(3, 4)
    params, h, x = random_state(cell, 3)
    params["z"]["b"] = jnp.full(4, -800.0)
    assert cell.gates is not None
    np.testing.assert_array_equal(cell.gates(params, h, x)["z"], 0)
    np.testing.assert_array_equal(cell.step(params, h, x)[0], h)


def test_gates_are_those_used_in_the_step():
    cell = gated_antisymmetric(3, 4, eps=0.3)
    params, h, x = random_state(cell, 3)
    plain = antisymmetric(3, 4, eps=0.3)
    ungated = plain.step({"W_h": params["W_h"], **params["h"]}, h, x)[0] - h
    assert cell.gates is not None
    np.testing.assert_allclose(
        cell.step(params, h, x)[0] - h, cell.gates(params, h, x)["z"] * ungated, rtol=1e-12
    )
