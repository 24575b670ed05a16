"""∂target_t/∂source_k for every pair, against autodiff of whole unrolls and closed forms."""

import functools
import inspect
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from products import problem

from gradflow.cell import Cell
from gradflow.cells import gru, lstm, rnn
from gradflow.flow import log_norms
from gradflow.flow.norm_map import log_norm_map
from gradflow.numerics.spectral import SMALL

T = 8
LSTM = lstm(3, 4, peephole=True)
PAST = np.tri(T + 1, dtype=bool)
ORDER = {"spectral": 2, "frobenius": None}


setup = functools.partial(problem, num_steps=T)


@functools.cache
def lstm_jacobians():
    """∂s_t/∂s_k for each pair k <= t, from one differentiation of the whole unroll."""
    params, inputs, carry = setup(LSTM)
    flat, unravel = ravel_pytree(carry)

    def carries(nudges):
        def body(s, at):
            x, nudge = at
            s = ravel_pytree(LSTM.step(params, unravel(s), x)[0])[0] + nudge
            return s, s

        first = flat + nudges[0]
        _, rest = jax.lax.scan(body, first, (inputs, nudges[1:]))
        return jnp.concatenate([first[None], rest])

    jacobian = np.asarray(jax.jit(jax.jacrev(carries))(jnp.zeros((T + 1, flat.size))))
    return {(t, k): jacobian[t, :, k] for t in range(T + 1) for k in range(t + 1)}


def as_matrix(jacobian):
    """The derivative of an LSTM's carry by its carry, h before c."""
    return np.concatenate(
        [np.concatenate([getattr(getattr(jacobian, t), s) for s in "hc"], axis=1) for t in "hc"]
    )


def lstm_block(jacobian, source, target):
    size = len(jacobian) // 2
    part = {"h": slice(size), "c": slice(size, None), "carry": slice(None)}
    return jacobian[part[target], part[source]]


@pytest.mark.parametrize(
    ("norm", "source", "target"),
    [
        ("spectral", "h", "h"),
        ("spectral", "c", "h"),
        ("spectral", "carry", "carry"),
        ("frobenius", "carry", "c"),
    ],
)
def test_every_pair_equals_autodiff_of_the_unroll(norm, source, target):
    params, inputs, carry = setup(LSTM)
    measured = log_norm_map(
        LSTM, params, inputs, norm=norm, source=source, target=target, carry=carry
    )
    assert measured.shape == (T + 1, T + 1)
    np.testing.assert_array_equal(np.isnan(measured), ~PAST)
    for (t, k), jacobian in lstm_jacobians().items():
        size = np.linalg.norm(lstm_block(jacobian, source, target), ORDER[norm])
        # Within one carry h does not depend on c.
        assert (size == 0) == (t == k and {source, target} == {"h", "c"})
        expected = np.log(size) if size else -np.inf
        np.testing.assert_allclose(measured[t, k], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("norm", ORDER)
def test_row_t_is_the_measurement_of_the_first_t_inputs(norm):
    cell = gru(3, 5)
    params, inputs, carry = setup(cell)
    measured = log_norm_map(cell, params, inputs, norm=norm, carry=carry)
    for t in (1, 4, T):
        expected = log_norms(cell, params, inputs[:t], norm=norm, carry=carry)
        np.testing.assert_allclose(measured[t, t::-1], expected, rtol=0, atol=1e-9)


@functools.cache  # one cell is compiled once
def identity_rnn(hidden_size):
    return rnn(hidden_size, hidden_size, activation="identity")


def linear(hidden_size, gain):
    """h_t = gain · Q h_{t-1} + x_t with Q orthogonal."""
    cell = identity_rnn(hidden_size)
    params = cell.init(jax.random.key(3))
    return cell, params | {"W_h": gain * params["W_h"], "W_x": jnp.eye(hidden_size)}


@pytest.mark.parametrize("hidden_size", [4, SMALL + 4])
@pytest.mark.parametrize("gain", [0.3, 1e-9, 1e9])
def test_linear_cell_has_its_closed_form_beyond_any_float(hidden_size, gain):
    num_steps = 60
    cell, params = linear(hidden_size, gain)
    inputs = jnp.zeros((num_steps, hidden_size))
    lag = np.subtract.outer(np.arange(num_steps + 1), np.arange(num_steps + 1))
    past = lag >= 0
    for norm, at_once in (("spectral", 0), ("frobenius", np.log(hidden_size) / 2)):
        measured = log_norm_map(cell, params, inputs, norm=norm)
        expected = (lag * np.log(gain) + at_once)[past]
        np.testing.assert_allclose(measured[past], expected, rtol=1e-13, atol=1e-9)


class Flagged(NamedTuple):
    h: jax.Array


def cut_where_flagged():
    """A leaky unit through which no gradient comes where its input is set."""

    def step(params, carry, x):
        h = jnp.where(x[0] > 0, jax.lax.stop_gradient(carry.h), carry.h)
        carry = Flagged(params * h + x[0])
        return carry, carry.h

    return Cell(
        lambda key: jnp.full(2, 0.5), step, lambda: Flagged(jnp.zeros(2)), lambda carry: carry.h
    )


def test_a_cut_gradient_is_minus_infinity_for_the_pairs_across_the_cut_alone():
    inputs = jnp.zeros((T, 1)).at[4].set(1.0)  # step 5
    measured = log_norm_map(cut_where_flagged(), jnp.full(2, 0.5), inputs)
    t, k = np.nonzero(PAST)
    across = (k < 5) & (t >= 5)
    np.testing.assert_array_equal(np.isneginf(measured[t, k]), across)
    expected = ((t - k) * np.log(0.5))[~across]
    np.testing.assert_allclose(measured[t, k][~across], expected, atol=1e-12)


@pytest.mark.parametrize("mask_as", ["lengths", "mask"])
def test_a_padded_step_changes_nothing(mask_as):
    params, inputs, carry = setup(LSTM)
    real = np.arange(T) < 5 if mask_as == "lengths" else np.arange(T) % 3 != 1
    padding = {"lengths": 5} if mask_as == "lengths" else {"mask": jnp.asarray(real)}
    # The norm knows nothing of padding, and that of Frobenius is compiled sooner.
    measure = functools.partial(log_norm_map, LSTM, params, norm="frobenius", carry=carry)
    measured, without = measure(inputs, **padding), measure(inputs[real])
    place = np.concatenate([[0], np.cumsum(real)])  # how many real steps came before
    expected = np.where(PAST, without[place[:, None], np.sort(place)], np.nan)
    np.testing.assert_allclose(measured, expected, rtol=0, atol=1e-9)


def test_float32_agrees_with_float64_and_does_not_underflow():
    cell, params = linear(4, 1e-3)
    inputs = jnp.zeros((60, 4), jnp.float32)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    measured = log_norm_map(cell, params, inputs)
    assert measured.dtype == jnp.float32
    np.testing.assert_allclose(measured[:, 0], np.arange(61) * np.log(1e-3), rtol=1e-5, atol=1e-5)


def test_the_search_for_the_spectral_norm_equals_a_decomposition_of_every_pair():
    num_steps, cell = 25, lstm(3, 24)
    params, inputs, carry = setup(cell, num_steps=num_steps)
    measured = log_norm_map(cell, params, inputs, carry=carry)
    step = jax.jit(lambda s, x: cell.step(params, s, x)[0])
    step_jacobian = jax.jit(jax.jacobian(step))
    s, products = carry, []  # one for each k so far, up to the present t
    for t, x in enumerate(inputs, start=1):
        jacobian = as_matrix(step_jacobian(s, x))
        s = step(s, x)
        products = [jacobian @ p for p in [*products, np.eye(48)]]
        expected = np.log([np.linalg.norm(p[:24, :24], 2) for p in products])
        np.testing.assert_allclose(measured[t, :t], expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("norm", "mode"),
    [("spectral", jax.jacfwd), ("spectral", jax.jacrev), ("frobenius", jax.jacrev)],
)
def test_its_derivative_is_that_of_a_difference_quotient(norm, mode):
    cell = lstm(3, 3)
    params, inputs, carry = setup(cell, num_steps=4)
    past = np.tri(5, dtype=bool)

    def of(scale):
        return log_norm_map(cell, params, scale * inputs, norm=norm, carry=carry)[past]

    derivative = mode(of)(1.0)
    step = 1e-5
    np.testing.assert_allclose(derivative, (of(1 + step) - of(1 - step)) / (2 * step), atol=1e-8)


def test_an_unknown_norm_or_block_is_refused():
    cell = lstm(3, 4)
    params, inputs, _ = setup(cell)
    with pytest.raises(ValueError, match="Expected norm='spectral' .*got 'nuclear'"):
        inspect.unwrap(log_norm_map)(cell, params, inputs, norm="nuclear")  # unchecked by beartype
    with pytest.raises(ValueError, match="one of h, carry, c, got 'z'"):
        log_norm_map(cell, params, inputs, source="z")
