"""Live paths, against counting them one by one."""

import itertools

import jax.numpy as jnp
import numpy as np
from studies import load_part

from gradflow import flow
from gradflow.cells import rnn
from gradflow.unroll import unroll

log_live_paths = load_part("relu_vs_tanh.paths").log_live_paths


def test_live_paths_are_those_that_are_counted_one_by_one():
    rng = np.random.default_rng(0)
    W_h = rng.normal(size=(3, 3)) * np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1]])
    slopes = rng.normal(size=(4, 3)) * np.array([[1, 0, 1], [1, 1, 1], [1, 1, 0], [0, 1, 1]])
    expected = [1.0]
    for lag in range(1, 5):
        chains = itertools.product(range(3), repeat=lag + 1)
        paths = [c for c in chains if all(W_h[j, i] for i, j in itertools.pairwise(c))]
        live = [c for c in paths if all(slopes[4 - lag + n, i] for n, i in enumerate(c[1:]))]
        expected.append(len(live) / len(paths))
    found = log_live_paths(jnp.asarray(W_h), jnp.asarray(slopes))
    np.testing.assert_allclose(np.exp(found), expected, rtol=1e-12)
    slopes[1] = 0
    found = log_live_paths(jnp.asarray(W_h), jnp.asarray(slopes))
    np.testing.assert_array_equal(np.isfinite(found), [True, True, True, False, False])


def test_no_gradient_goes_where_no_path_lives():
    cell = rnn(1, 2, activation="relu")
    W_h = jnp.array([[0.0, 1.0], [0.5, 0.0]])
    params = {"W_x": jnp.ones((2, 1)), "W_h": W_h, "b": jnp.zeros(2)}
    x = jnp.array([1.0, 1.0, -9.0, 1.0, 1.0])[:, None]  # all dead at step 3
    outputs = unroll(cell, params, x).outputs
    found = log_live_paths(W_h, (outputs > 0).astype(float))
    norms = flow.log_norms(cell, params, x)
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(norms))
    np.testing.assert_array_equal(np.isfinite(found), [True, True, True, False, False, False])


def test_the_share_does_not_overflow_over_many_steps():
    W_h, slopes = jnp.ones((50, 50)), jnp.ones((2000, 50)).at[:, :25].set(0)
    found = log_live_paths(W_h, slopes)
    np.testing.assert_allclose(found, -np.log(2) * np.arange(2001), rtol=1e-12)
