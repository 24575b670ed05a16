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


@pytest.mark.parametrize("input_size", [3, 0])
def test_step_equals_the_reference(input_size):
    assert_step_matches(cfn(input_size, 4), reference, input_size)


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
