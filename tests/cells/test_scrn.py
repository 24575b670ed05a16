"""The SCRN against its equations, and the constant decay of its context."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import assert_step_matches, random_state

from gradflow.cells.scrn import SCRNCarry, scrn
from gradflow.unroll import unroll


def reference_with(alpha):
    def reference(params, carry, x):
        A, B = params["h"]["W_x"], params["s"]["W_x"]
        P, R = params["h"]["W_s"], params["h"]["W_h"]
        s = (1 - alpha) * B @ x + alpha * carry.s
        return SCRNCarry(1 / (1 + np.exp(-(P @ s + A @ x + R @ carry.h))), s)

    return reference


@pytest.mark.parametrize("options", [{}, {"alpha": 0.3, "context_size": 2}, {"context_size": 5}])
@pytest.mark.parametrize("input_size", [3, 0])
def test_step_equals_the_reference(options, input_size):
    cell = scrn(input_size, 4, **options)
    assert_step_matches(cell, reference_with(options.get("alpha", 0.95)), input_size)


@pytest.mark.parametrize("alpha", [0.95, 0.0])
def test_context_decays_by_alpha_at_every_step(key, alpha):
    cell = scrn(2, 4, alpha=alpha, context_size=3)
    params, carry, _ = random_state(cell, 2)
    inputs = jax.random.normal(key, (20, 2))

    def last_context(carry):
        return unroll(cell, params, inputs, carry=carry).carries.s[-1]

    jacobian = jax.jacobian(last_context)(carry)
    np.testing.assert_allclose(jacobian.s, alpha**20 * np.eye(3), rtol=1e-13)
    np.testing.assert_array_equal(jacobian.h, np.zeros((3, 4)))


def test_matrices_use_the_given_initialisers(key):
    params = scrn(3, 3, recurrent_init="identity(gain=2.0)", input_init="identity(gain=5.0)").init(
        key
    )
    np.testing.assert_array_equal(params["h"].pop("W_h"), 2 * np.eye(3))
    for leaf in jax.tree.leaves(params):
        np.testing.assert_array_equal(leaf, 5 * np.eye(3))


def test_hidden_excludes_the_context():
    cell = scrn(2, 4, context_size=3)
    params, carry, x = random_state(cell, 2)
    carry, h = cell.step(params, carry, x)
    np.testing.assert_array_equal(h, carry.h)
    np.testing.assert_array_equal(cell.hidden(carry), jnp.asarray(carry.h))
