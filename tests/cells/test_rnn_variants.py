"""The vanilla RNN's residual option, and the identity RNN."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import assert_step_matches, random_state

from gradflow.cells.rnn import irnn, rnn
from gradflow.unroll import unroll


@pytest.mark.parametrize("input_size", [3, 0])
def test_residual_step_equals_the_reference(input_size):
    def reference(params, h, x):
        return np.tanh(params["W_x"] @ x + (params["W_h"] + np.eye(4)) @ h + params["b"])

    assert_step_matches(rnn(input_size, 4, residual=True), reference, input_size)


@pytest.mark.parametrize("residual", [True, False])
def test_residual_step_equals_flax(residual):
    cell = rnn(3, 4, residual=residual)
    params, h, x = random_state(cell, 3)
    theirs = nn.SimpleCell(4, residual=residual, param_dtype=jnp.float64)
    flax_params = {
        "i": {"kernel": params["W_x"].T, "bias": params["b"]},
        "h": {"kernel": params["W_h"].T},
    }
    expected, _ = theirs.apply({"params": flax_params}, h, x)
    np.testing.assert_allclose(cell.step(params, h, x)[0], expected, rtol=1e-14)


@pytest.mark.parametrize("input_size", [3, 0])
def test_irnn_step_equals_the_reference(input_size):
    def reference(params, h, x):
        a = params["W_x"] @ x + params["W_h"] @ h + params["b"]
        return np.where(a.real > 0, a, 0)

    assert_step_matches(irnn(input_size, 4), reference, input_size)


def test_initial_matrix_of_the_irnn_is_a_scaled_identity(key):
    params = irnn(100, 60, scale=0.5).init(key)
    np.testing.assert_array_equal(params["W_h"], 0.5 * np.eye(60))
    np.testing.assert_array_equal(params["b"], np.zeros(60))
    # 6000 numbers: four standard errors of their deviation.
    assert params["W_x"].std() == pytest.approx(0.001, rel=4 / np.sqrt(2 * 6000))


def test_gradient_of_the_irnn_is_a_power_of_its_scale(key):
    cell = irnn(2, 3, scale=0.9)
    params, inputs = cell.init(key), jnp.ones((20, 2))
    h = jnp.ones(3)
    last = lambda h: unroll(cell, params, inputs, carry=h).outputs[-1]  # noqa: E731
    np.testing.assert_allclose(jax.jacobian(last)(h), 0.9**20 * np.eye(3), rtol=1e-13)
