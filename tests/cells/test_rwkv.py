"""RWKV-7 against NumPy, as a sum over products of its transitions, and their eigenvalues."""

import functools

import jax
import numpy as np
from matrix_states import HEADS, on_each_row, sample, sigmoid, split, transitions, unit
from oracle import assert_step_matches, random_state

from gradflow.cells.heads import MatrixCarry
from gradflow.cells.rwkv import rwkv7

CELL = rwkv7(3, 6, num_heads=HEADS)


def terms(params, x):
    """r, k', v and the transition of every head."""
    a = split(params, x)
    scales = (np.split(params[name], HEADS) for name in ("xi", "alpha"))
    for r, k, v, w, rate, xi, alpha in zip(*(a[p] for p in "rkvwa"), *scales, strict=True):
        rate, kappa = sigmoid(rate), unit(k * xi)
        decay = np.exp(-np.exp(-0.5) * sigmoid(w))
        transition = np.diag(decay) - np.outer(kappa, rate * kappa)
        yield r, k * (1 - alpha) + k * rate * alpha, v, transition


def test_step_equals_the_reference():
    def reference(params, carry, x):
        S, h = [], []
        for before, (r, k, v, transition) in zip(carry.S, terms(params, x), strict=True):
            S.append(before @ transition + np.outer(v, k))
            h.append(S[-1] @ r)
        return MatrixCarry(np.stack(S), np.concatenate(h))

    assert_step_matches(CELL, reference, 3)


def test_recurrence_equals_the_sum_over_products_of_transitions():
    params, inputs, outputs = sample(CELL)
    steps = [list(terms(params, x)) for x in inputs]
    for t in range(len(inputs)):
        for i in range(HEADS):
            expected = 0
            for s in range(t + 1):
                _, k, v, _ = steps[s][i]
                later = [steps[u][i][3] for u in range(s + 1, t + 1)]
                product = functools.reduce(np.matmul, later, np.eye(3))
                expected += v * (k @ product @ steps[t][i][0])
            np.testing.assert_allclose(outputs[t, 3 * i : 3 * i + 3], expected, rtol=1e-11)


def test_every_row_of_the_state_has_the_same_step_matrix():
    jacobian, params, _, x = transitions(CELL)
    expected = on_each_row([transition for *_, transition in terms(params, x)])
    np.testing.assert_allclose(jacobian, expected, atol=1e-15)


def test_eigenvalues_are_real_and_in_the_stated_range():
    params, carry, _ = random_state(CELL, 3)
    step = lambda S, x: CELL.step(params, carry._replace(S=S), x)[0].S  # noqa: E731
    inputs = 5 * jax.random.normal(jax.random.key(3), (30, 3))
    jacobians = jax.vmap(jax.jacobian(step), (None, 0))(carry.S, inputs)
    eigenvalues = np.linalg.eigvals(jacobians.reshape(-1, 18, 18))
    np.testing.assert_allclose(np.imag(eigenvalues), 0, atol=1e-12)
    lowest, highest = np.min(eigenvalues.real), np.max(eigenvalues.real)
    assert np.exp(-np.exp(-0.5)) - 1 < lowest < -0.3 and 0.9 < highest < 1


def test_initial_parameters_are_those_of_the_authors(key):
    params = rwkv7(2, 5).init(key)
    expected = -6.5 + 5 * (np.arange(5) / 4) ** 0.85
    np.testing.assert_allclose(params["w"]["b"], expected, rtol=1e-12)
    for values, initial in ((params["a"]["b"], 0), (params["xi"], 0.85), (params["alpha"], 1)):
        np.testing.assert_array_equal(values, np.full(5, initial))
    assert rwkv7(2, 1).init(key)["w"]["b"] == -6.5
