"""All singular values of long products, held against exact arithmetic over hundreds of decades."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from oracle import random_state
from products import as_inputs, given, random_rotations, step_jacobians

from gradflow.cells import lstm, rnn
from gradflow.flow.spectrum import effective_rank, log_singular_values
from gradflow.numerics.jacobi import graded_svd

LSTM_BLOCKS = {"h": np.eye(6)[:3], "c": np.eye(6)[3:], "carry": np.eye(6)}


def exact(jacobians, lags, source=None, target=None, digits=700):
    """Log singular values of target · J_T ... J_{T-lag+1} · sourceᵀ with hundreds of digits."""
    eye = np.eye(jacobians.shape[1])
    source, target = (eye if block is None else block for block in (source, target))
    values = {}
    with mpmath.workdps(digits):
        product = mpmath.matrix(target.tolist())
        for lag in range(1, max(lags) + 1):
            product = product * mpmath.matrix(jacobians[-lag].tolist())
            if lag in lags:
                block = product * mpmath.matrix(source.T.tolist())
                found = mpmath.svd_r(block, compute_uv=False)
                values[lag] = np.sort([float(mpmath.log(value)) for value in found])[::-1]
    return values


def assert_exact(measured, expected, rtol=1e-12, atol=1e-12):
    for lag, values in expected.items():
        np.testing.assert_allclose(measured[lag], values, rtol, atol, err_msg=f"lag {lag}")


@pytest.fixture(scope="module")
def measured_rnn():
    """A net whose singular values drift 450 decades apart, its Jacobians, and what is measured."""
    cell = rnn(1, 5, recurrent_init="normal")
    params = cell.init(jax.random.key(0))
    inputs = jax.random.normal(jax.random.key(1), (300, 1))
    measured = log_singular_values(cell, params, inputs)
    return (cell, params, inputs), step_jacobians(cell, params, inputs), measured


def test_rnn_over_hundreds_of_orders_of_magnitude(measured_rnn):
    _, jacobians, measured = measured_rnn
    assert np.ptp(measured[-1]) > 400 * np.log(10)
    assert_exact(measured, exact(jacobians, {1, 2, 7, 40, 300}))


def test_all_of_them_are_the_determinant(measured_rnn):
    _, jacobians, measured = measured_rnn
    dets = np.cumsum(np.linalg.slogdet(jacobians[::-1])[1])
    np.testing.assert_allclose(measured[1:].sum(axis=1), dets, rtol=1e-11)


@pytest.mark.parametrize(
    ("source", "target"),
    [("h", "h"), ("c", "h"), ("h", "carry"), ("carry", "carry")],
)
def test_every_block_of_the_lstm(source, target):
    cell = lstm(2, 3)
    params, carry, _ = random_state(cell, 2)
    inputs = jax.random.normal(jax.random.key(1), (60, 2))
    jacobians = step_jacobians(cell, params, inputs, carry)
    blocks = LSTM_BLOCKS[source], LSTM_BLOCKS[target]
    measured = log_singular_values(cell, params, inputs, source=source, target=target, carry=carry)
    assert measured.shape == (61, min(map(len, blocks)))
    assert_exact(measured, exact(jacobians, {1, 2, 9, 60}, *blocks, digits=200))
    np.testing.assert_array_equal(measured[0], -np.inf if (source, target) == ("c", "h") else 0)


RATES = np.array([1e-1, 1, 1e-3, 3, 0.5])
STEPS = 200


def of_product(jacobians):
    """The log singular values of J_T ... J_{T-lag+1} for matrices (200, 5, 5)."""
    return np.asarray(log_singular_values(given(5), {}, as_inputs(jacobians)))


def test_decoupled_units_keep_their_own_rates():
    rates = np.log(RATES) + np.random.default_rng(0).normal(size=(STEPS, 5))
    measured = of_product([np.diag(np.exp(r)) for r in rates])
    sums = np.concatenate([np.zeros((1, 5)), np.cumsum(rates[::-1], axis=0)])
    assert np.ptp(measured[-1]) > 1000
    np.testing.assert_allclose(measured, np.sort(sums)[:, ::-1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("coupling", [1e-15, 1e-6])
def test_units_coupled_ever_so_little(coupling):
    noise = np.random.default_rng(0).normal(size=(STEPS, 5, 5))
    jacobians = np.diag(RATES) + coupling * np.tril(noise, -1)
    assert_exact(of_product(jacobians), exact(jacobians, {1, 3, 12, STEPS}))


def test_equal_singular_values():
    expected = np.arange(STEPS + 1)[:, None] * np.full(5, np.log(0.3))
    np.testing.assert_allclose(of_product(0.3 * random_rotations(STEPS, 5)), expected, atol=1e-11)


def test_an_ill_conditioned_step_costs_eps_times_its_condition():
    u = random_rotations(STEPS + 1, 5)
    rates = np.log([1, 1e-2, 1e-4, 1e-6, 1e-8])
    measured = of_product(u[1:] * np.exp(rates) @ u[:-1].mT)
    expected = np.arange(STEPS + 1)[:, None] * rates
    np.testing.assert_allclose(measured, expected, rtol=0, atol=STEPS * 1e8 * 1e-16)


def test_a_product_with_known_values_in_many_blocks_of_rotations():
    # J_t = U_t D_t U_{t-1}ᵀ: the singular values are the products of those of D, whatever U is.
    size, num_steps = 37, 60
    u = random_rotations(num_steps + 1, size)
    rates = np.random.default_rng(1).normal(np.linspace(-3, 1, size), 0.5, (num_steps, size))
    jacobians = u[1:] * np.exp(rates)[:, None, :] @ u[:-1].mT
    measured = log_singular_values(given(size), {}, as_inputs(jacobians))
    expected = np.sort(np.cumsum(rates[::-1], axis=0))[:, ::-1]
    np.testing.assert_allclose(measured[1:], expected, rtol=0, atol=1e-9)


RELU = rnn(2, 8, activation="relu", recurrent_init="normal(gain=1.5)")


def relu_net():
    params = RELU.init(jax.random.key(3))
    return params, 2 * jax.random.normal(jax.random.key(4), (30, 2))


def test_dead_units_are_exact_zeros():
    params, inputs = relu_net()
    measured = np.asarray(log_singular_values(RELU, params, inputs))
    jacobians = step_jacobians(RELU, params, inputs)
    for lag, values in exact(jacobians, {1, 2, 5, 30}, digits=400).items():
        values = np.where(values < -500, -np.inf, values)  # of 400 digits, those of rounding
        assert 0 < np.isneginf(values).sum() < 8
        np.testing.assert_allclose(measured[lag], values, rtol=1e-10)


def test_padded_steps_are_identities():
    cell = rnn(2, 3)
    params, carry, _ = random_state(cell, 2)
    inputs = jax.random.normal(jax.random.key(1), (12, 2))
    padded = log_singular_values(cell, params, inputs, carry=carry, lengths=9)
    short = log_singular_values(cell, params, inputs[:9], carry=carry)
    np.testing.assert_allclose(padded[3:], short, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(padded[:4], 0, atol=1e-14)
    masked = log_singular_values(cell, params, inputs, carry=carry, mask=jnp.arange(12) < 9)
    np.testing.assert_array_equal(masked, padded)


def test_float32_to_its_own_rounding(measured_rnn):
    (cell, params, inputs), _, expected = measured_rnn
    single = log_singular_values(cell, *jax.tree.map(jnp.float32, (params, inputs)))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, expected, rtol=3e-5, atol=3e-5)


def test_a_graded_matrix_with_more_rows_than_columns():
    rng = np.random.default_rng(0)
    log_scale, matrix = np.array([-300.0, 0, -5, -900, -310]), rng.normal(size=(5, 3))
    log_values, vectors = jax.jit(graded_svd)(jnp.asarray(log_scale), jnp.asarray(matrix))
    with mpmath.workdps(900):
        scaled = mpmath.diag([mpmath.exp(s) for s in log_scale]) * mpmath.matrix(matrix.tolist())
        found = mpmath.svd_r(scaled, compute_uv=False)
        expected = [float(mpmath.log(value)) for value in found]
    np.testing.assert_allclose(log_values, expected, rtol=1e-14)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(3), atol=1e-14)


def test_a_graded_matrix_with_dependent_rows_among_others():
    matrix = np.array([[1.0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1]])
    log_scale = np.array([2, 1.5, 1, 0.5, 0])
    log_values, vectors = jax.jit(graded_svd)(jnp.asarray(log_scale), jnp.asarray(matrix))
    scaled = np.exp(log_scale)[:, None] * matrix
    expected = np.linalg.svd(scaled, compute_uv=False)[:3]
    np.testing.assert_allclose(log_values, [*np.log(expected), -np.inf], rtol=1e-13)
    gram = vectors.T @ np.diag(np.exp(2 * log_values)) @ vectors
    np.testing.assert_allclose(gram, scaled.T @ scaled, atol=1e-12)


def test_the_effective_rank_where_only_logarithms_fit():
    log_values = jnp.array([[0.0, 0, 0], [-2000, -2000, -9000], [5, -jnp.inf, -jnp.inf]])
    np.testing.assert_allclose(effective_rank(log_values), [3, 2, 1], rtol=1e-14)
    share = np.array([3, 1]) / 4
    expected = np.exp(-np.sum(share * np.log(share)))
    np.testing.assert_allclose(effective_rank(jnp.log(jnp.array([6.0, 2]))), expected, rtol=1e-14)
