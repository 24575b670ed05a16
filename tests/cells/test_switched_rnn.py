"""The vanilla RNN whose activation is a parameter, against plain RNNs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import jit

from gradflow import unroll
from gradflow.cells.rnn import rnn, switched_rnn, with_each_activation

NAMES = ("tanh", "relu")


def test_equals_the_plain_rnn_of_the_selected_activation(key):
    params, x = rnn(2, 3).init(key), jax.random.normal(key, (5, 2))

    def loss(cell, params):
        return jnp.sum(unroll(cell, params, x).outputs ** 3)

    def both(params):
        switched = [
            jax.value_and_grad(lambda p: loss(switched_rnn(NAMES, 2, 3), p))(
                {"phi": jnp.asarray(index), "net": params}
            )
            for index in (0.0, 1.0)
        ]
        plain = [
            jax.value_and_grad(lambda p, name=name: loss(rnn(2, 3, activation=name), p))(params)
            for name in NAMES
        ]
        return switched, plain

    for (value, slope), (expected, gradient) in zip(*jit(both)(params), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-12)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), slope["net"], gradient
        )
        assert slope["phi"] == 0


def test_initial_parameters_are_those_of_the_plain_rnn_with_the_first_activation(key):
    switched, plain = switched_rnn(NAMES, 2, 3).init(key), rnn(2, 3).init(key)
    assert switched["phi"] == 0
    jax.tree.map(np.testing.assert_array_equal, switched["net"], plain)


@pytest.mark.parametrize("axes", [(), (2,), (2, 4)])
def test_runs_are_repeated_for_each_activation(axes):
    W_h = np.random.default_rng(0).normal(size=(*axes, 3, 3))
    found = with_each_activation({"phi": jnp.zeros(axes), "net": {"W_h": jnp.asarray(W_h)}}, 2)
    runs = int(np.prod(axes))
    np.testing.assert_array_equal(found["phi"], np.repeat([0, 1], runs))
    np.testing.assert_array_equal(found["net"]["W_h"], np.tile(W_h.reshape(-1, 3, 3), (2, 1, 1)))


def test_unknown_activation_raises():
    with pytest.raises(ValueError, match="Unknown activation 'rleu'"):
        switched_rnn(("tanh", "rleu"), 2, 3)
