"""The light GRU against its equations and the UGRNN, and its scaling with the input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import assert_step_matches, random_state

from gradflow.cells.ligru import ligru
from gradflow.cells.minimal import ugrnn
from gradflow.unroll import unroll


def reference(p, h, x):
    a_z, a_n = (p[q]["W_x"] @ x + p[q]["W_h"] @ h + p[q]["b"] for q in "zn")
    z = 1 / (1 + np.exp(-a_z))
    return z * h + (1 - z) * np.where(np.real(a_n) > 0, a_n, 0)


@pytest.mark.parametrize("input_size", [3, 0])
def test_step_equals_the_reference(input_size):
    assert_step_matches(ligru(input_size, 4), reference, input_size)


def test_with_tanh_it_is_an_ugrnn():
    params, h, x = random_state(ligru(3, 4), 3)
    same = ugrnn(3, 4).step({"g": params["z"], "c": params["n"]}, h, x)[0]
    found = ligru(3, 4, activation="tanh").step(params, h, x)[0]
    np.testing.assert_allclose(found, same, rtol=1e-14)


def test_with_a_constant_gate_the_states_are_as_large_as_the_inputs(key):
    """A ReLU is homogeneous: the states are not bounded, as those of a tanh are."""
    cell = ligru(2, 4)
    params = cell.init(key)
    params["z"] = jax.tree.map(jnp.zeros_like, params["z"])
    inputs = jax.random.normal(key, (20, 2))
    one, thousand = (unroll(cell, params, s * inputs).outputs for s in (1, 1000))
    np.testing.assert_allclose(thousand, 1000 * one, rtol=1e-12)
    assert (one >= 0).all() and one.max() > 0.1
