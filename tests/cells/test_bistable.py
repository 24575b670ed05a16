"""The bistable cells against their equations, and the two states between which a unit chooses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import assert_step_matches, random_state

from gradflow.cells.bistable import brc, nbrc
from gradflow.unroll import unroll


def reference(past):
    """past is the product of w_h or W_h with h."""

    def step(p, h, x):
        a = 1 + np.tanh(p["a"]["W_x"] @ x + past(p["a"], h) + p["a"]["b"])
        c = 1 / (1 + np.exp(-(p["c"]["W_x"] @ x + past(p["c"], h) + p["c"]["b"])))
        return c * h + (1 - c) * np.tanh(p["n"]["W_x"] @ x + a * h)

    return step


BRC = reference(lambda gate, h: gate["w_h"] * h)
NBRC = reference(lambda gate, h: gate["W_h"] @ h)


@pytest.mark.parametrize("input_size", [3, 0])
@pytest.mark.parametrize("factory, expected", [(brc, BRC), (nbrc, NBRC)])
def test_step_equals_the_reference(factory, expected, input_size):
    assert_step_matches(factory(input_size, 4), expected, input_size)


def test_an_nbrc_with_diagonal_matrices_is_a_brc():
    params, h, x = random_state(brc(3, 4), 3)
    matrices = {q: p | {"W_h": jnp.diag(p["w_h"])} for q, p in params.items() if q != "n"}
    same = nbrc(3, 4).step(matrices | {"n": params["n"]}, h, x)[0]
    np.testing.assert_allclose(brc(3, 4).step(params, h, x)[0], same, rtol=1e-14)


def without_input(a):
    """A BRC whose bistability parameter is a, and whose gate is half open, for any state."""
    cell = brc(1, 2, recurrent_scale=0.0)
    params = cell.init(jax.random.key(0))
    params["a"] |= {"b": jnp.full(2, np.arctanh(a - 1))}
    return cell, params


def test_a_unit_has_one_stable_state_below_the_bifurcation_and_two_above():
    for a, kept in [(0.7, 0.0), (1.5, 0.85856)]:  # tanh(1.5 · 0.85856) = 0.85856
        cell, params = without_input(a)
        for first in ([0.01, -0.9], [0.9, -0.01]):
            run = unroll(cell, params, jnp.zeros((400, 1)), carry=jnp.array(first))
            np.testing.assert_allclose(run.outputs[-1], [kept, -kept], atol=1e-5)


def test_the_slope_at_zero_crosses_one_at_the_bifurcation():
    for a in (0.8, 1.0, 1.2):
        cell, params = without_input(a)
        jacobian = jax.jacobian(lambda h: cell.step(params, h, jnp.zeros(1))[0])(jnp.zeros(2))  # noqa: B023
        np.testing.assert_allclose(jacobian, (0.5 + 0.5 * a) * np.eye(2), rtol=1e-12)


def test_initial_recurrent_weights_are_the_given_scale(key):
    params = brc(2, 3, recurrent_scale=0.5).init(key)
    np.testing.assert_array_equal(params["a"]["w_h"], np.full(3, 0.5))
    np.testing.assert_array_equal(params["c"]["w_h"], np.full(3, 0.5))
    assert set(params["n"]) == {"W_x"}
    with pytest.raises(ValueError, match="Expected recurrent_scale to be finite, got inf. Set"):
        brc(2, 3, recurrent_scale=np.inf)
