"""The nnRNN against NumPy and SciPy, and its spectrum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from oracle import assert_step_matches, random_state

from gradflow.cells.schur import nnrnn


def recurrent_matrix(p, n):
    A, schur, a, t = np.zeros((n, n)), np.zeros((n, n)), list(p["A"]), list(p["T"])
    for i in range(n):
        for j in range(i + 1, n):
            A[i, j] = a.pop(0)
            A[j, i] = -A[i, j]
            if j // 2 > i // 2:
                schur[i, j] = t.pop(0)
    assert not a and not t  # every parameter is used
    for k in range(n // 2):
        turn = np.exp(1j * p["theta"][k])
        block = [[turn.real, -turn.imag], [turn.imag, turn.real]]
        schur[2 * k : 2 * k + 2, 2 * k : 2 * k + 2] = p["gamma"][k] * np.array(block)
    P = scipy.linalg.expm(A)
    return P @ schur @ P.T


@pytest.mark.parametrize("activation", ["modrelu", "tanh"])
def test_step_equals_the_reference(activation):
    def reference(p, h, x):
        a = p["W_x"] @ x + recurrent_matrix(p, 6) @ h
        if activation == "tanh":
            return np.tanh(a + p["b"])
        return np.where(np.abs(a.real) + p["b"] >= 0, a + p["b"] * np.sign(a.real), 0)

    assert_step_matches(nnrnn(3, 6, activation=activation), reference, 3)


def linear_jacobian(cell, params, n):
    return np.asarray(jax.jacobian(lambda h: cell.step(params, h, jnp.ones(3))[0])(jnp.ones(n)))


def by_angle(eigenvalues):
    return eigenvalues[np.argsort(np.angle(eigenvalues))]


def test_eigenvalues_are_those_of_the_blocks_for_any_upper_triangle():
    cell = nnrnn(3, 6, activation="identity")
    params = random_state(cell, 3)[0]
    given = np.asarray(params["gamma"] * jnp.exp(1j * params["theta"]))
    assert np.abs(params["T"]).max() > 0.5  # far from normal
    W = linear_jacobian(cell, params, 6)
    expected = by_angle(np.concatenate([given, given.conj()]))
    np.testing.assert_allclose(by_angle(np.linalg.eigvals(W)), expected, rtol=1e-11)
    assert np.linalg.norm(W @ W.T - W.T @ W) > 0.5


@pytest.mark.parametrize("skew_init", ["henaff", "cayley"])
def test_initial_network_is_linear_and_orthogonal(skew_init, key):
    cell = nnrnn(3, 8, skew_init=skew_init)
    W = linear_jacobian(cell, cell.init(key), 8)
    np.testing.assert_allclose(W @ W.T, np.eye(8), atol=1e-12)
    assert np.all(np.abs(np.angle(np.linalg.eigvals(W))) > 0)


def test_initial_skew_parameter_follows_the_named_distribution(key):
    a = {name: nnrnn(2, 8, skew_init=name).init(key)["A"] for name in ("henaff", "cayley")}
    starts = [0, 13, 22, 27]  # of the rows 0, 2, 4, 6 of the 7 + 6 + ... + 1 entries
    for entries in a.values():
        np.testing.assert_array_equal(np.flatnonzero(entries), starts)
    assert np.all((a["cayley"][np.array(starts)] < 0) & (a["cayley"][np.array(starts)] > -1))
    assert np.abs(a["henaff"]).max() > 1


def test_smallest_network_has_no_entries_above_its_block(key):
    cell = nnrnn(3, 2, activation="identity")
    params = cell.init(key)
    assert params["T"].shape == (0,)
    eigenvalues = np.linalg.eigvals(linear_jacobian(cell, params, 2))
    np.testing.assert_allclose(
        np.sort(eigenvalues.real), np.cos(params["theta"]).repeat(2), rtol=1e-12
    )
