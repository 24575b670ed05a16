"""TTT-Linear against NumPy with the gradient of its layer norm by hand, and as a delta rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrix_states import HEADS, on_each_row, sample, sigmoid, split, transitions
from oracle import assert_step_matches, random_state

from gradflow.cells.heads import MatrixCarry
from gradflow.cells.ttt import ttt_linear

PLAIN = ttt_linear(3, 6, num_heads=HEADS, layer_norm=False, learning_rate=0.7)
NORMED = ttt_linear(3, 6, num_heads=HEADS, learning_rate=0.7)


def terms(params, x):
    a = split(params, x)
    rates = [0.7 / 3 * sigmoid(eta) for eta in a["eta"]]
    return zip(a["q"], a["k"], a["v"], rates, params["W_0"], strict=True)


def normalised(a):
    centred = a - np.mean(a)
    return centred, np.sqrt(np.mean(centred**2) + 1e-6)


@pytest.mark.parametrize("cell", [PLAIN, NORMED], ids=["plain", "layer norm"])
def test_step_equals_the_reference(cell):
    def inner(params, i, W, k):
        if cell is PLAIN:
            return W @ k
        centred, scale = normalised(W @ k)
        return k + params["gain"][i] * centred / scale + params["bias"][i]

    def gradient(params, i, W, k, v):
        """∂ℓ/∂(W k), of the layer norm by the usual formula of its backward pass."""
        error = inner(params, i, W, k) - v
        if cell is PLAIN:
            return error
        centred, scale = normalised(W @ k)
        error = error * params["gain"][i]
        a = centred / scale
        return (error - np.mean(error) - a * np.mean(error * a)) / scale

    def reference(params, carry, x):
        S, h = [], []
        for i, (q, k, v, eta, W_0) in enumerate(terms(params, x)):
            W = W_0 + carry.S[i]
            W = W - eta * np.outer(gradient(params, i, W, k, v), k)
            S.append(W - W_0)
            h.append(inner(params, i, W, q))
        return MatrixCarry(np.stack(S), np.concatenate(h))

    assert_step_matches(cell, reference, 3)


def test_without_the_layer_norm_it_is_the_delta_rule():
    jacobian, params, carry, x = transitions(PLAIN)
    matrices, states = [], []
    for i, (_, k, v, eta, W_0) in enumerate(terms(params, x)):
        matrices.append(np.eye(3) - eta * np.outer(k, k))
        states.append((W_0 + carry.S[i]) @ matrices[i] + eta * np.outer(v, k) - W_0)
    np.testing.assert_allclose(jacobian, on_each_row(matrices), atol=1e-14)
    new, _ = PLAIN.step(*jax.tree.map(jnp.asarray, (params, carry, x)))
    np.testing.assert_allclose(new.S, states, rtol=1e-11, atol=1e-14)


def test_recurrence_from_zero_equals_the_parallel_form_of_the_delta_rule():
    params, inputs, outputs = sample(PLAIN)
    steps = [list(terms(params, x)) for x in inputs]
    for i in range(HEADS):
        q, k, v, eta, W_0 = (np.stack(a) for a in zip(*[s[i] for s in steps], strict=True))
        residual = v - k @ W_0[0].T  # W_0 is a stored value under each key
        system = np.eye(len(inputs)) + np.tril(eta * (k @ k.T), -1)
        expected = np.tril(q @ k.T) @ np.linalg.solve(system, eta * residual) + q @ W_0[0].T
        np.testing.assert_allclose(outputs[:, 3 * i : 3 * i + 3], expected, rtol=1e-10, atol=1e-13)


def test_a_step_reduces_the_inner_loss():
    """The output for the key moves towards the value when the query is the key."""
    params, carry, x = random_state(NORMED, 3)
    params["q"] = params["k"]
    value = params["v"]["W_x"] @ x
    losses = []
    for _ in range(4):
        carry, h = NORMED.step(params, carry, x)
        losses.append(np.sum((h - value) ** 2))
    assert np.all(np.diff(losses) < 0)


def test_initial_parameters(key):
    params = ttt_linear(2, 40).init(key)
    np.testing.assert_allclose(np.std(params["W_0"]), 0.02, rtol=0.1)
    np.testing.assert_array_equal(params["gain"], 1)
    np.testing.assert_array_equal(params["bias"], 0)
    assert "gain" not in PLAIN.init(key)
