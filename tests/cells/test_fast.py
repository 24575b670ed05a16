"""The FastRNN and the FastGRNN against their equations, and the bounds of their Jacobians."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import assert_step_matches, random_state, sigmoid

from gradflow import flow
from gradflow.cells.fast import fastgrnn, fastrnn


def fastrnn_reference(p, h, x):
    candidate = np.tanh(p["W_x"] @ x + p["W_h"] @ h + p["b"])
    return sigmoid(p["alpha"]) * candidate + sigmoid(p["beta"]) * h


def fastgrnn_reference(p, h, x):
    a = p["W_x"] @ x + p["W_h"] @ h
    z = sigmoid(a + p["b_z"])
    return (sigmoid(p["zeta"]) * (1 - z) + sigmoid(p["nu"])) * np.tanh(a + p["b_h"]) + z * h


@pytest.mark.parametrize("input_size", [3, 0])
@pytest.mark.parametrize(
    "factory, reference", [(fastrnn, fastrnn_reference), (fastgrnn, fastgrnn_reference)]
)
def test_step_equals_the_reference(factory, reference, input_size):
    assert_step_matches(factory(input_size, 4), reference, input_size)


def test_every_singular_value_of_a_fastrnn_is_between_its_bounds(key):
    """(β - α)^T <= the singular values <= (β + α)^T for an orthogonal W_h."""
    cell, steps = fastrnn(2, 5), 30
    inputs = jax.random.normal(key, (steps, 2))
    spectra = flow.log_singular_values(cell, cell.init(key), inputs)
    low, high = np.log(sigmoid(3.0) - sigmoid(-3.0)), np.log(sigmoid(3.0) + sigmoid(-3.0))
    lags = np.arange(steps + 1)[:, None]
    assert (lags * low - 1e-9 <= spectra).all() and (spectra <= lags * high + 1e-9).all()
    assert spectra[-1].min() < steps * (low + high) / 2  # the bounds say something


def test_a_fastgrnn_whose_gate_is_open_is_a_residual_rnn():
    params, h, x = random_state(fastgrnn(3, 4), 3)
    params |= {"b_z": jnp.full(4, 60.0)}
    candidate = np.tanh(params["W_x"] @ x + params["W_h"] @ h + params["b_h"])
    expected = h + sigmoid(params["nu"]) * candidate
    np.testing.assert_allclose(fastgrnn(3, 4).step(params, h, x)[0], expected, rtol=1e-13)


def test_the_initial_values_are_the_given_ones(key):
    params = fastrnn(2, 3, alpha=-1.0, beta=0.5).init(key)
    assert (params["alpha"], params["beta"]) == (-1.0, 0.5)
    params = fastgrnn(2, 3, zeta=2.0, nu=-3.0, forget_bias=1.5).init(key)
    assert (params["zeta"], params["nu"]) == (2.0, -3.0)
    np.testing.assert_array_equal(params["b_z"], np.full(3, 1.5))
    np.testing.assert_array_equal(params["b_h"], np.zeros(3))
    h = fastrnn(2, 3, activation="identity").step(
        params | {"b": 0.0, "alpha": 50.0, "beta": -50.0}, jnp.ones(3), jnp.ones(2)
    )[0]
    np.testing.assert_allclose(h, params["W_x"].sum(1) + params["W_h"].sum(1), rtol=1e-12)
