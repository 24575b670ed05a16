"""The RAN and the ATR against their equations, and their states as sums over the inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import assert_step_matches, random_state, sigmoid

from gradflow import flow
from gradflow.cells.additive import atr, ran
from gradflow.unroll import unroll


def ran_reference(phi):
    def reference(p, carry, x):
        h, c = carry
        i, f = (sigmoid(p[q]["W_x"] @ x + p[q]["W_h"] @ h + p[q]["b"]) for q in "if")
        c = i * (p["g"]["W_x"] @ x) + f * c
        return phi(c), c

    return reference


def atr_reference(params, h, x):
    p, q = params["W_x"] @ x + params["b"], params["W_h"] @ h
    return sigmoid(p + q) * p + sigmoid(p - q) * h


@pytest.mark.parametrize("input_size", [3, 0])
def test_step_equals_the_reference(input_size):
    assert_step_matches(ran(input_size, 4), ran_reference(np.tanh), input_size)
    assert_step_matches(atr(input_size, 4), atr_reference, input_size)


def test_a_ran_without_output_activation_equals_the_reference():
    assert_step_matches(ran(3, 4, activation="identity"), ran_reference(lambda c: c), 3)


@pytest.mark.parametrize("name", ["ran", "atr"])
def test_the_state_is_a_sum_of_the_inputs_weighted_by_the_gates(name):
    """c_T = Σ_j f_T ∘ ... ∘ f_{j+1} ∘ i_j ∘ W x_j: equation 5 of the paper on the RAN."""
    cell = {"ran": ran, "atr": atr}[name](2, 3)
    params, _, _ = random_state(cell, 2)
    inputs = jax.random.normal(jax.random.key(1), (9, 2))
    gates = flow.gates(cell, params, inputs)
    if name == "ran":
        content = inputs @ params["g"]["W_x"].T
        found = unroll(cell, params, inputs).carries.c[-1]
    else:
        content = inputs @ params["W_x"].T + params["b"]
        found = unroll(cell, params, inputs).carries[-1]
    kept = jnp.cumprod(jnp.concatenate([jnp.ones((1, 3)), gates["f"][:0:-1]]), axis=0)[::-1]
    np.testing.assert_allclose(found, (kept * gates["i"] * content).sum(0), rtol=1e-12)


def test_open_forget_gates_of_a_ran_copy_the_cell_state():
    cell = ran(3, 4, forget_bias=60.0)
    params, carry, x = random_state(cell, 3)
    params["i"] |= {"b": jnp.full(4, -60.0)}
    np.testing.assert_allclose(cell.step(params, carry, x)[0].c, carry.c, rtol=1e-14)


def test_the_two_gates_of_an_atr_have_opposite_slopes_in_the_state():
    cell = atr(3, 4)
    params, h, x = random_state(cell, 3)
    slopes = jax.jacobian(lambda h: cell.gates(params, h, x))(h)
    gates = cell.gates(params, h, x)
    i, f = ((g * (1 - g))[:, None] for g in (gates["i"], gates["f"]))
    np.testing.assert_allclose(slopes["i"] / i, -slopes["f"] / f, rtol=1e-10)


def test_initial_biases_are_the_given_values(key):
    params = ran(2, 3, forget_bias="chrono(max_lag=50)").init(key)
    np.testing.assert_array_equal(params["i"]["b"], -params["f"]["b"])
    assert params["f"]["b"].min() > 0 and set(params["g"]) == {"W_x"}
    assert set(atr(2, 3).init(key)) == {"W_x", "W_h", "b"}
