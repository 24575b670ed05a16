"""The STAR and LightRU cells against their equations, and their states where the gate is shut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import assert_step_matches, random_state

from gradflow import flow
from gradflow.cells.minimal import minimal_rnn
from gradflow.cells.star import light_ru, star
from gradflow.unroll import unroll


def gate(p, h, x):
    return 1 / (1 + np.exp(-(p["W_x"] @ x + p["W_h"] @ h + p["b"])))


def star_reference(p, h, x):
    k, z = gate(p["k"], h, x), np.tanh(p["n"]["W_x"] @ x + p["n"]["b"])
    return np.tanh((1 - k) * h + k * z)


def light_ru_reference(p, h, x):
    f = gate(p["f"], h, x)
    return (1 - f) * h + f * np.tanh(p["n"]["W_x"] @ x)


@pytest.mark.parametrize("input_size", [3, 0])
@pytest.mark.parametrize(
    "factory, reference", [(star, star_reference), (light_ru, light_ru_reference)]
)
def test_step_equals_the_reference(factory, reference, input_size):
    assert_step_matches(factory(input_size, 4), reference, input_size)


def test_a_shut_star_decays_as_a_power_of_time():
    """h' = tanh(h) ≈ h - h³/3, hence h ≈ √(3/2t), and its derivative by h_0 falls as t^(-3/2)."""
    cell, steps = star(1, 1, forget_bias=60.0), 4000
    params, inputs = cell.init(jax.random.key(0)), jnp.zeros((steps, 1))
    h = unroll(cell, params, inputs, carry=jnp.ones(1)).outputs
    np.testing.assert_allclose(h[-1], np.sqrt(1.5 / steps), rtol=2e-3)
    norms = flow.log_norms(cell, params, inputs, carry=jnp.ones(1))
    half = flow.log_norms(cell, params, inputs[: steps // 2], carry=jnp.ones(1))
    np.testing.assert_allclose((norms[-1] - half[-1]) / np.log(2), -1.5, atol=0.01)


def test_a_light_ru_is_a_minimal_rnn_whose_gate_reads_the_candidate():
    """Where W_x^f = W_z^u diag(n/W_x^n x), the two have the same gate."""
    params, h, x = random_state(light_ru(1, 4), 1)
    n = params["n"]["W_x"] @ x
    W_z = jnp.diag(params["f"]["W_x"] @ x / jnp.tanh(n))
    u = {"W_h": -params["f"]["W_h"], "W_z": -W_z, "b": -params["f"]["b"]}
    z = params["n"] | {"b": jnp.zeros(4)}
    same = minimal_rnn(1, 4).step({"z": z, "u": u}, h, x)[0]
    np.testing.assert_allclose(light_ru(1, 4).step(params, h, x)[0], same, rtol=1e-12)


def test_the_state_of_both_is_bounded_by_one(key):
    for factory in (star, light_ru):
        cell = factory(2, 4)
        params = random_state(cell, 2)[0]
        run = unroll(cell, params, 20 * jax.random.normal(key, (30, 2)))
        assert 0.7 < jnp.abs(run.outputs).max() <= 1


def test_initial_biases_are_the_given_values(key):
    params = star(2, 3, forget_bias=2.0).init(key)
    np.testing.assert_array_equal(params["k"]["b"], np.full(3, -2.0))
    np.testing.assert_array_equal(params["n"]["b"], np.zeros(3))
    assert (star(2, 3, forget_bias="chrono(max_lag=50)").init(key)["k"]["b"] < 0).all()
    assert set(light_ru(2, 3).init(key)["n"]) == {"W_x"}
