"""JANET against its equations, and the effect of its forget bias and beta."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import assert_step_matches, random_state

from gradflow.cells.janet import janet
from gradflow.unroll import unroll


def reference_with(beta):
    def reference(params, h, x):
        def a(q):
            return params[q]["W_x"] @ x + params[q]["W_h"] @ h + params[q]["b"]

        forget = 1 / (1 + np.exp(-a("f")))
        shifted = 1 / (1 + np.exp(-(a("f") - beta)))
        return forget * h + (1 - shifted) * np.tanh(a("g"))

    return reference


@pytest.mark.parametrize("beta", [1.0, 0.0])
@pytest.mark.parametrize("input_size", [3, 0])
def test_step_equals_the_reference(beta, input_size):
    cell = janet(input_size, 4, beta=beta)
    assert_step_matches(cell, reference_with(beta), input_size)


def test_forget_bias_sets_the_memory(key):
    cell = janet(2, 3, forget_bias=math.log(99))  # f = 0.99
    params = jax.tree.map(lambda leaf: leaf if leaf.ndim == 1 else 0 * leaf, cell.init(key))
    last = lambda h: unroll(cell, params, jnp.ones((30, 2)), carry=h).outputs[-1]  # noqa: E731
    np.testing.assert_allclose(jax.jacobian(last)(jnp.ones(3)), 0.99**30 * np.eye(3), rtol=1e-13)


@pytest.mark.parametrize("beta, bounded", [(0.0, True), (1.0, False)])
def test_state_is_an_average_if_beta_is_zero(key, beta, bounded):
    cell = janet(2, 4, beta=beta)
    run = unroll(cell, random_state(cell, 2)[0], 10 * jax.random.normal(key, (30, 2)))
    assert (jnp.abs(run.outputs).max() <= 1) == bounded


def test_input_is_still_added_if_the_forget_gate_is_open():
    cell = janet(1, 1)
    params, h, x = random_state(cell, 1)
    params["f"] |= {"W_x": jnp.zeros((1, 1)), "W_h": jnp.zeros((1, 1)), "b": jnp.array([60.0])}
    gates = cell.gates(params, h, x)
    assert gates["f"] == 1
    np.testing.assert_allclose(gates["i"], math.exp(1 - 60), rtol=1e-13)
