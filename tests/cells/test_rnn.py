"""The vanilla RNN against Flax and NumPy, and its permutation symmetry."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import assert_step_matches, random_state

from gradflow.cells import rnn
from gradflow.cells.activations import ACTIVATIONS, resolve_activation

# Written from the definitions, for complex arguments: comparisons look at the real part.
REFERENCES = {
    "elu": lambda a: np.where(a.real > 0, a, np.exp(a) - 1),
    "gelu": lambda a: a / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (a + 0.044715 * a**3))),
    "hard_tanh": lambda a: np.where(abs(a.real) < 1, a, np.sign(a.real)),
    "identity": lambda a: a,
    "leaky_relu": lambda a: np.where(a.real > 0, a, 0.01 * a),
    "mish": lambda a: a * np.tanh(np.log(1 + np.exp(a))),
    "relu": lambda a: np.where(a.real > 0, a, 0),
    "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
    "silu": lambda a: a / (1 + np.exp(-a)),
    "soft_sign": lambda a: a / (1 + np.sign(a.real) * a),
    "softplus": lambda a: np.log(1 + np.exp(a)),
    "tanh": np.tanh,
}


@pytest.mark.parametrize("name", REFERENCES)
def test_step_and_jacobians_equal_numpy(name):
    def reference(p, h, x):
        return REFERENCES[name](p["W_x"] @ x + p["W_h"] @ h + p["b"])

    assert_step_matches(rnn(3, 4, activation=name), reference, 3)


def test_step_and_jacobians_equal_flax():
    params, h, x = random_state(rnn(3, 5), 3)
    flax_params = {
        "i": {"kernel": params["W_x"].T, "bias": params["b"]},
        "h": {"kernel": params["W_h"].T},
    }

    def flax_step(h, x):
        return nn.SimpleCell(5).apply({"params": flax_params}, h, x)[0]

    def step(h, x):
        return rnn(3, 5).step(params, h, x)[0]

    np.testing.assert_allclose(step(h, x), flax_step(h, x), rtol=1e-12)
    both = (0, 1)
    for ours, theirs in zip(
        jax.jacobian(step, both)(h, x), jax.jacobian(flax_step, both)(h, x), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-14)


def test_step_jacobian_equals_the_documented_equation():
    params, h, x = random_state(rnn(2, 4), 2)
    new = rnn(2, 4).step(params, h, x)[1]
    jacobian = jax.jacobian(lambda h: rnn(2, 4).step(params, h, x)[0])(h)
    np.testing.assert_allclose(jacobian, np.diag(1 - new**2) @ params["W_h"], rtol=1e-12)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_every_activation_is_elementwise(name):
    a = jnp.linspace(-3.1, 3.3, 7)
    phi = resolve_activation(name)
    np.testing.assert_allclose(phi(a), [phi(value) for value in a], rtol=1e-15)
    jacobian = np.asarray(jax.jacobian(phi)(a))
    np.testing.assert_array_equal(jacobian, np.diag(np.diag(jacobian)))
    assert np.isfinite(jacobian).all() and jacobian.any()


def test_initial_parameters_are_as_documented(key):
    params = rnn(3, 6).init(key)
    assert set(params) == {"W_x", "W_h", "b"}
    np.testing.assert_allclose(params["W_h"] @ params["W_h"].T, np.eye(6), atol=1e-12)
    np.testing.assert_array_equal(params["b"], np.zeros(6))
    params = rnn(6, 6, recurrent_init="identity(gain=2.0)", input_init="identity").init(key)
    np.testing.assert_array_equal(params["W_h"], 2 * np.eye(6))
    np.testing.assert_array_equal(params["W_x"], np.eye(6))
