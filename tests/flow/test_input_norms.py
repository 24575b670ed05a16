"""Norms of ∂h_T/∂x_k against automatic differentiation of the unroll, and a closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import random_state

from gradflow import flow
from gradflow.cell import Cell
from gradflow.cells import gru, lstm
from gradflow.unroll import unroll

T = 7


@pytest.mark.parametrize("cell", [lstm(3, 4), gru(3, 4)], ids=["lstm", "gru"])
@pytest.mark.parametrize("target", ["h", "carry"])
def test_they_equal_automatic_differentiation_of_the_whole_unroll(cell, target):
    params, carry, _ = random_state(cell, 3)
    inputs = jax.random.normal(jax.random.key(1), (T, 3))

    def last(x):
        s = jax.tree.map(lambda leaf: leaf[-1], unroll(cell, params, x, carry=carry).carries)
        return cell.hidden(s) if target == "h" else jnp.concatenate(jax.tree.leaves(s))

    jacobian = jax.jacrev(last)(inputs)  # row, step, channel
    expected = np.log(np.linalg.norm(jacobian, axis=(0, 2)))[::-1]
    found = flow.log_input_norms(cell, params, inputs, target=target, carry=carry)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_closed_form_far_beyond_the_range_of_floats():
    """h_t = g h_{t-1} + v x_t: ‖∂h_T/∂x_k‖ = g^(T-k) ‖v‖."""
    v = jnp.arange(1.0, 4.0)
    cell = Cell(
        lambda key: {"v": v}, lambda p, h, x: 2 * (0.3 * h + p["v"] * x,), lambda: jnp.zeros(3)
    )
    found = flow.log_input_norms(cell, {"v": v}, jnp.ones((2000, 1)))
    expected = np.arange(2000) * np.log(0.3) + np.log(np.linalg.norm(v))
    np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_the_input_of_a_padded_step_has_no_effect():
    cell = lstm(3, 4)
    params = cell.init(jax.random.key(0))
    inputs = jax.random.normal(jax.random.key(1), (T, 3)).at[5:].set(jnp.nan)
    found = flow.log_input_norms(cell, params, inputs, lengths=5)
    assert np.isneginf(found[:2]).all()
    expected = flow.log_input_norms(cell, params, inputs[:5])
    np.testing.assert_allclose(found[2:], expected, rtol=1e-12)


def test_in_chunks_they_are_the_same():
    cell = lstm(3, 4)
    params = cell.init(jax.random.key(0))
    inputs = jax.random.normal(jax.random.key(1), (T, 3))
    found = flow.in_chunks(flow.log_input_norms, chunk_steps=3)(cell, params, inputs)
    np.testing.assert_allclose(found, flow.log_input_norms(cell, params, inputs), rtol=1e-12)
