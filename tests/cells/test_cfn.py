"""The chaos-free network against its equations, and its decay to zero without input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import assert_step_matches, random_state

from gradflow.cells.cfn import cfn
from gradflow.unroll import unroll


def reference(params, h, x):
    def sigmoid(q):
        return 1 / (1 + np.exp(-(params[q]["W_x"] @ x + params[q]["W_h"] @ h + params[q]["b"])))

    return sigmoid("f") * np.tanh(h) + sigmoid("i") * np.tanh(params["g"]["W_x"] @ x)


@pytest.mark.parametrize("input_size, seed", [(3, 0), (3, 1), (0, 2)])
def test_step_equals_the_reference(input_size, seed):
    assert_step_matches(cfn(input_size, 4), reference, input_size, seed)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_state_without_input_decays_to_zero_by_its_forget_gate(seed):
    cell = cfn(3, 4)
    params, h, _ = random_state(cell, 3, seed)
    run = unroll(cell, params, jnp.zeros((400, 3)), carry=10 * h)
    before, after = jnp.abs(run.carries[:-1]), jnp.abs(run.carries[1:])
    f = jax.vmap(lambda h: cell.gates(params, h, jnp.zeros(3))["f"])(run.carries[:-1])
    assert (after <= f * before).all()
    assert after[-1].max() < 1e-6


def test_state_is_bounded_by_two(key):
    cell = cfn(2, 4)
    params = random_state(cell, 2)[0]
    run = unroll(cell, params, 30 * jax.random.normal(key, (30, 2)))
    assert 0.9 < jnp.abs(run.outputs).max() <= 2


def test_initial_forget_bias_is_one_and_input_bias_minus_one(key):
    cell = cfn(2, 3)
    params = cell.init(key)
    gates = cell.gates(params, jnp.zeros(3), jnp.zeros(2))
    np.testing.assert_allclose(gates["f"], 1 / (1 + np.exp(-1)), rtol=1e-14)
    np.testing.assert_allclose(gates["i"], 1 / (1 + np.exp(1)), rtol=1e-14)
    assert set(params["g"]) == {"W_x"}


def test_initial_biases_are_the_given_values(key):
    params = cfn(2, 3, forget_bias=2.0, input_bias=0.5).init(key)
    np.testing.assert_array_equal(params["f"]["b"], np.full(3, 2.0))
    np.testing.assert_array_equal(params["i"]["b"], np.full(3, 0.5))
