"""Feed-forward networks as cells: the end-to-end Jacobian, and learning by gradient descent."""

import _layers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import saxe2014_learning

from gradflow import flow

WIDTH, DEPTH = 4, 3
SLOPES = {
    "linear": np.ones_like,
    "relu": lambda x: (x > 0) * 1.0,
    "tanh": lambda x: 1 - np.tanh(x) ** 2,
    "hard_tanh": lambda x: (np.abs(x) < 1) * 1.0,
}


@pytest.mark.parametrize("activation", _layers.ACTIVATIONS)
def test_the_singular_values_are_those_of_the_product_of_the_layers(activation):
    rows = _layers.weights(jax.random.key(0), "gaussian", DEPTH, WIDTH, 1.3)
    h = np.asarray(jax.random.normal(jax.random.key(1), (WIDTH,)))
    cell = _layers.layers(WIDTH, activation)
    found = flow.log_singular_values(cell, {}, rows, carry=jnp.asarray(h))[-1]
    product = np.eye(WIDTH)
    for W in np.asarray(rows).reshape(DEPTH, WIDTH, WIDTH):
        product = W * SLOPES[activation](h) @ product
        h = W @ np.asarray(_layers.ACTIVATIONS[activation](jnp.asarray(h)))
    wanted = np.linalg.svd(product, compute_uv=False)
    np.testing.assert_allclose(np.exp(found), wanted, atol=1e-12)


def test_orthogonal_weights_are_orthogonal_times_the_gain():
    W = _layers.weights(jax.random.key(0), "orthogonal", DEPTH, WIDTH, 0.5)
    W = np.asarray(W).reshape(DEPTH, WIDTH, WIDTH)
    np.testing.assert_allclose(W @ W.transpose(0, 2, 1), 0.25 * np.tile(np.eye(4), (3, 1, 1)),
                               atol=1e-12)  # fmt: skip


def test_one_update_is_the_learning_rule_of_the_paper():
    """ΔW_1 = λ W_2ᵀ (Σ - W_2 W_1) and ΔW_2 = λ (Σ - W_2 W_1) W_1ᵀ, its equation 1."""
    random = np.random.default_rng(0)
    first, second, task = random.standard_normal((3, WIDTH, WIDTH))
    W = jnp.asarray(np.stack([first, second]).reshape(2, -1))
    found, maps = saxe2014_learning.descend(W, jnp.asarray(task), 0.01, 1)
    error = task - second @ first
    wanted = [first + 0.01 * second.T @ error, second + 0.01 * error @ first.T]
    np.testing.assert_allclose(found.reshape(2, WIDTH, WIDTH), wanted, atol=1e-12)
    np.testing.assert_allclose(maps[0], second @ first, atol=1e-12)


def test_decoupled_layers_have_the_strength_that_was_asked_for():
    W, task, R = saxe2014_learning.decoupled(jax.random.key(0), DEPTH, jnp.arange(1.0, 5.0), 0.1)
    total = saxe2014_learning.total(W, WIDTH)
    np.testing.assert_allclose(R[-1].T @ total @ R[0], 0.1 * np.eye(WIDTH), atol=1e-12)
    np.testing.assert_allclose(R[-1].T @ task @ R[0], np.diag([1, 2, 3, 4]), atol=1e-12)
