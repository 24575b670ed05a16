"""Padding of a cell whose derivatives are infinite where the input, or the state, is zero."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradflow import flow
from gradflow.cell import Cell
from gradflow.padding import fill_padding
from gradflow.unroll import unroll

T, SIZE, LENGTH = 6, 3, 4
X = jax.random.normal(jax.random.key(1), (T, SIZE))
FILLS = {"zero": 0.0, "NaN": jnp.nan, "infinity": jnp.inf, "a number": 3.0}


def normalising():
    """h_t = tanh(W h_{t-1} + U x_t / ‖U x_t‖), with a root of the state that is kept beside it."""

    def step(params, h, x):
        moved = params["U"] @ x
        h = jnp.tanh(params["W"] @ h + moved / jnp.linalg.norm(moved)) + 0.3
        return h, h

    def init(key):
        k_W, k_U = jax.random.split(key)
        shape = SIZE, SIZE
        return {"W": 0.5 * jax.random.normal(k_W, shape), "U": jax.random.normal(k_U, shape)}

    return Cell(init, step, lambda: jnp.zeros(SIZE))


CELL = normalising()
PARAMS = CELL.init(jax.random.key(0))


def last_squared(outputs):
    return jnp.sum(outputs[-1] ** 2)


def assert_trees_close(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("method", ["scan", "planned"])
def test_gradients_are_those_of_the_sequences_themselves(fill, method):
    lengths = [LENGTH, T, 1]
    batch = jax.random.normal(jax.random.key(2), (T, 3, SIZE))
    is_real = jnp.arange(T)[:, None] < jnp.array(lengths)
    padded = jnp.where(is_real[..., None], batch, FILLS[fill])

    def loss(params, inputs):
        outputs = unroll(CELL, params, inputs, lengths=lengths, method=method).outputs
        return jnp.sum(outputs[-1] ** 2)

    def by_themselves(params, inputs):
        every = [unroll(CELL, params, inputs[:n, b]).outputs[-1] for b, n in enumerate(lengths)]
        return jnp.sum(jnp.stack(every) ** 2)

    found = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(PARAMS, padded)
    expected = jax.value_and_grad(by_themselves, argnums=(0, 1))(PARAMS, batch)
    assert_trees_close(found, expected)


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("first", [0, T - LENGTH])
def test_measurements_are_those_of_the_sequence_itself(fill, first):
    real = X[first : first + LENGTH]
    mask = (jnp.arange(T) >= first) & (jnp.arange(T) < first + LENGTH)
    given = CELL, PARAMS, jnp.where(mask[:, None], X, FILLS[fill])
    own = CELL, PARAMS, real
    lags = slice(T - LENGTH, None) if first == 0 else slice(None, LENGTH + 1)
    assert_trees_close(flow.log_norms(*given, mask=mask)[lags], flow.log_norms(*own))
    assert_trees_close(
        flow.lyapunov_exponents(*given, mask=mask).exponents,
        flow.lyapunov_exponents(*own).exponents,
    )
    shares = flow.components(*given, loss=last_squared, mask=mask)
    expected = flow.components(*own, loss=last_squared)
    assert_trees_close(jax.tree.map(lambda leaf: leaf[mask], shares), expected)
    assert all(np.isneginf(leaf[~mask]).all() for leaf in jax.tree.leaves(shares))
    adjoints = flow.adjoints(*given, loss=last_squared, mask=mask)
    assert_trees_close(adjoints[first : first + LENGTH + 1], flow.adjoints(*own, loss=last_squared))


@pytest.mark.parametrize("fill", ["zero", "NaN"])
def test_a_chunk_that_is_all_padding_is_none_of_the_sequence(fill):
    inputs = X.at[1:].set(FILLS[fill])
    measure = flow.in_chunks(flow.components, chunk_steps=2)
    found = measure(CELL, PARAMS, inputs, loss=last_squared, lengths=1)
    assert_trees_close(found, flow.components(CELL, PARAMS, inputs, loss=last_squared, lengths=1))
    assert np.isfinite(found["U"][0])


@pytest.mark.parametrize("fill", FILLS)
def test_a_sequence_without_a_real_step_has_no_gradient_and_no_nan(fill):
    def loss(params):
        batch = jnp.stack([X, jnp.full_like(X, FILLS[fill])], axis=1)
        return jnp.sum(unroll(CELL, params, batch, lengths=[T, 0]).outputs[-1] ** 2)

    def alone(params):
        return jnp.sum(unroll(CELL, params, X).outputs[-1] ** 2)

    assert_trees_close(jax.grad(loss)(PARAMS), jax.grad(alone)(PARAMS))


def test_an_infinite_derivative_by_the_state_at_a_padded_step_reaches_no_real_one():
    """The root of h has an infinite derivative where h is 0, which is where padding finds it."""

    def step(params, h, x):
        h = params * jnp.sqrt(h) * x
        return h, h

    cell = Cell(lambda key: jnp.ones(2), step, lambda: jnp.ones(2))
    x = jnp.array([[1.0, 2.0], [3.0, 1.0], [0.0, 0.0], [5.0, 5.0], [5.0, 5.0]])
    found = flow.adjoints(cell, jnp.ones(2), x, loss=lambda h: jnp.sum(h[2]), lengths=3)
    own = flow.adjoints(cell, jnp.ones(2), x[:3], loss=lambda h: jnp.sum(h[2]))
    assert_trees_close(found[:4], own)
    assert np.isfinite(own).all()


def test_the_first_real_input_stands_in_the_padding():
    valid = jnp.array([[False, True, False], [True, True, False], [True, False, False]])
    inputs = jnp.arange(9.0).reshape(3, 3, 1).at[0, 2].set(jnp.nan)
    expected = [[3, 1, 1], [3, 4, 1], [6, 1, 1]]
    np.testing.assert_array_equal(fill_padding(inputs, valid)[..., 0], expected)
    kept = fill_padding(inputs.at[0, 2].set(7.0), valid)
    np.testing.assert_array_equal(kept[:, 2, 0], [7, 7, 7])
    assert fill_padding(jnp.zeros((0, 3, 1)), jnp.zeros((0, 3), bool)).shape == (0, 3, 1)
