"""Lyapunov exponents against closed forms, exact laws of random products, and NumPy's QR."""

import functools

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from oracle import random_state
from products import as_inputs, given, random_rotations, step_jacobians

from gradflow.cell import Cell
from gradflow.cells import lstm, rnn
from gradflow.flow.lyapunov import lyapunov_exponents
from gradflow.flow.lyapunov.mean_error import WIDENING, standard_error_of_mean
from gradflow.numerics.qr import _cholesky_twice, log_frame

DRIVEN = rnn(2, 6, recurrent_init="normal(gain=1.5)")


@functools.cache
def driven_net():
    """Parameters and inputs of 400 steps that keep a net from chaos."""
    return DRIVEN.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (400, 2))


def of_driven(num_steps=400, **options):
    params, inputs = driven_net()
    return lyapunov_exponents(DRIVEN, params, inputs[:num_steps], **options)


def of_products(jacobians, **options):
    jacobians = np.asarray(jacobians)
    return lyapunov_exponents(given(jacobians.shape[1]), {}, as_inputs(jacobians), **options)


def by_numpy(jacobians, burn_in):
    """The exponents by a QR at every step, from a frame of its own."""
    frame = np.linalg.qr(np.random.default_rng(5).normal(size=jacobians.shape[1:]))[0]
    growths = []
    for jacobian in jacobians:
        frame, r = np.linalg.qr(jacobian @ frame)
        growths.append(np.log(np.abs(np.diag(r))))
    return np.mean(growths[burn_in:], axis=0)


def test_orthogonal_times_gain():
    found = of_products(0.7 * random_rotations(60, 4))
    np.testing.assert_allclose(found.exponents, np.log(0.7), rtol=1e-13)
    np.testing.assert_allclose(found.standard_error, 0, atol=1e-14)


@pytest.mark.parametrize("time_reversed", [False, True])
def test_linear_net_has_the_logarithms_of_its_eigenvalues(time_reversed):
    cell = rnn(0, 5, activation="identity")
    params = cell.init(jax.random.key(0))
    turn = 0.9 * np.array([[np.cos(1), -np.sin(1)], [np.sin(1), np.cos(1)]])
    normal = np.zeros((5, 5))
    normal[:2, :2], normal[2:, 2:] = turn, np.diag([2, 0.4, -0.1])
    rotation = random_rotations(1, 5)[0]
    skewed = np.eye(5) + 0.3 * np.random.default_rng(0).normal(size=(5, 5))
    expected = np.log([2, 0.9, 0.9, 0.4, 0.1])
    similar = np.linalg.solve(skewed, np.diag([0.4, 3, -0.1, 1, -0.01]) @ skewed)
    for w, exponents in ((rotation @ normal @ rotation.T, expected),
                         (similar, np.log([3, 1, 0.4, 0.1, 0.01]))):  # fmt: skip
        found = lyapunov_exponents(
            cell, params | {"W_h": jnp.asarray(w)}, jnp.zeros((200, 0)), burn_in=80,
            time_reversed=time_reversed,
        )  # fmt: skip
        np.testing.assert_allclose(found.exponents, exponents, rtol=1e-10, atol=1e-13)


def test_decoupled_units_come_sorted():
    rates = np.array([-3.0, 1, -1, 0.5])
    found = of_products([np.diag(np.exp(rates))] * 120, burn_in=60)
    np.testing.assert_allclose(found.exponents, np.sort(rates)[::-1], atol=1e-10)


def test_products_of_gaussian_matrices():
    # With entries of variance 1/N each step's growth is ½ log(χ²_{N-i+1}/N), whatever came before.
    # Source: Newman 1986, Commun. Math. Phys. 103, 121.
    size, num_steps = 6, 2500
    jacobians = np.random.default_rng(0).normal(size=(num_steps, size, size)) / np.sqrt(size)
    freedom = np.arange(size, 0, -1) / 2
    digamma, trigamma = (np.array([float(mpmath.psi(n, f)) for f in freedom]) for n in (0, 1))
    expected, error = 0.5 * (digamma + np.log(2 / size)), 0.5 * np.sqrt(trigamma / num_steps)
    found = of_products(jacobians)
    np.testing.assert_array_less(np.abs(found.exponents - expected), 3 * error)
    # The widened one is known from 7 values: the mean of six exponents' squares to one in four.
    ratio = np.sqrt(np.mean((found.standard_error / error) ** 2)) / WIDENING
    assert 0.7 < ratio < 1.4


@pytest.mark.parametrize("time_reversed", [False, True])
def test_all_sum_to_the_mean_log_determinant(time_reversed):
    cell = lstm(2, 3)
    params, carry, _ = random_state(cell, 2)
    inputs = jax.random.normal(jax.random.key(1), (150, 2))
    found = lyapunov_exponents(
        cell, params, inputs, carry=carry, burn_in=30, time_reversed=time_reversed
    )
    jacobians = step_jacobians(cell, params, inputs, carry)[30 : 120 if time_reversed else 150]
    assert found.exponents.shape == (6,)
    expected = np.linalg.slogdet(jacobians)[1].mean()
    np.testing.assert_allclose(found.exponents.sum(), expected, rtol=0, atol=1e-10)


def test_chaotic_net_equals_a_plain_qr_from_another_start():
    cell = rnn(0, 6, recurrent_init="normal(gain=4)")
    params, carry = cell.init(jax.random.key(3)), jax.random.normal(jax.random.key(1), (6,))
    inputs = jnp.zeros((300, 0))
    expected = by_numpy(step_jacobians(cell, params, inputs, carry), 200)
    found = lyapunov_exponents(cell, params, inputs, carry=carry, burn_in=200)
    assert found.exponents[0] > 0
    np.testing.assert_allclose(found.exponents, expected, rtol=1e-6)  # it is chaotic


def test_time_reversed_agrees_within_the_error():
    onward, back = of_driven(burn_in=50), of_driven(burn_in=50, time_reversed=True)
    assert back.running.shape == (300, 6)
    assert (np.diff(back.exponents) < 0).all()
    error = np.hypot(onward.standard_error, back.standard_error)
    np.testing.assert_array_less(np.abs(back.exponents - onward.exponents), 4 * error)


@pytest.mark.parametrize("time_reversed", [False, True])
def test_padded_steps_are_left_out(time_reversed):
    params, inputs = driven_net()
    mask = np.random.default_rng(0).random(60) < 0.7
    options = {"burn_in": 5, "time_reversed": time_reversed}
    junk = inputs[:60].at[~mask].set(jnp.nan)
    padded = lyapunov_exponents(DRIVEN, params, junk, mask=jnp.asarray(mask), **options)
    short = lyapunov_exponents(DRIVEN, params, inputs[:60][mask], **options)
    for found, expected in zip(padded, short, strict=True):
        np.testing.assert_allclose(found[: len(expected)], expected, rtol=1e-9, atol=1e-10)
    assert (padded.running[len(short.running) :] == padded.exponents).all()


def test_without_a_real_step_to_count_there_is_no_exponent():
    found = of_driven(num_steps=12, burn_in=5, lengths=5)
    assert jnp.isnan(found.exponents).all() and jnp.isnan(found.standard_error).all()


@pytest.mark.parametrize("count", [1, 3])
def test_a_few_are_the_first_of_all(count):
    few, every = of_driven(burn_in=7, num_exponents=count), of_driven(burn_in=7)
    np.testing.assert_allclose(few.exponents, every.exponents[:count], rtol=1e-10)


@pytest.mark.parametrize("qr_every", [1, 2])
def test_qr_every(qr_every):
    # Neither the 7 steps of burn-in nor the 393 after them fill whole stretches of 2.
    found, free = of_driven(burn_in=7, qr_every=qr_every), of_driven(burn_in=7)
    np.testing.assert_allclose(found.exponents, free.exponents, rtol=0, atol=1e-10)


def test_running_estimates_are_those_of_shorter_runs():
    whole = of_driven(burn_in=7, qr_every=1)
    np.testing.assert_array_equal(whole.running[-1], whole.exponents)
    part = of_driven(82, burn_in=7, qr_every=1)
    np.testing.assert_allclose(whole.running[:75], part.running, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(whole.running[74], part.exponents, rtol=1e-10)


def test_growth_over_a_stretch_is_attributed_in_equal_parts():
    twos, ones = (of_driven(burn_in=7, qr_every=every).running for every in (2, 1))
    np.testing.assert_allclose(twos[1::2], ones[1::2], rtol=0, atol=1e-10)
    np.testing.assert_allclose(twos[0], twos[1], rtol=1e-12)


def test_standard_error_is_that_of_the_counted_growths():
    found = of_driven(burn_in=7, qr_every=1)
    sums = np.arange(1, 394)[:, None] * found.running
    growths = np.diff(sums, axis=0, prepend=0)
    expected = standard_error_of_mean(jnp.asarray(growths), 393)
    np.testing.assert_allclose(found.standard_error, expected, rtol=1e-8)
    assert np.isnan(of_driven(8).standard_error).all()


def test_stretches_that_lose_digits_are_repeated():
    # After quiet steps, during which the stretches grow, each step spreads over 8 decades.
    rotation = random_rotations(1, 4)[0]
    hard = rotation * [1, 1e-3, 1e-6, 1e-8] @ rotation.T
    jacobians = [np.eye(4)] * 40 + [hard] * 20
    expected = of_products(jacobians, qr_every=1).exponents
    assert expected[-1] > -np.inf
    np.testing.assert_allclose(of_products(jacobians).exponents, expected, rtol=1e-7, atol=1e-9)
    np.testing.assert_array_equal(of_products(jacobians, qr_every=8).exponents[-1], -np.inf)


def test_contractive_net_stays_below_its_weights():
    cell = rnn(2, 4, recurrent_init="orthogonal(gain=0.8)")
    params = cell.init(jax.random.key(0))
    found = lyapunov_exponents(cell, params, jax.random.normal(jax.random.key(1), (100, 2)))
    assert (found.running < np.log(0.8)).all()


def test_a_cut_gradient_is_minus_infinity_from_there():
    def step(params, h, x):
        cut = jnp.where(jnp.arange(4) < 2, jax.lax.stop_gradient(h), h)
        h = params @ jnp.where(x[0] > 0, cut, h)
        return h, h

    cell = Cell(lambda key: jnp.eye(4), step, lambda: jnp.ones(4))
    inputs = jnp.zeros((30, 1)).at[10].set(1)
    running = lyapunov_exponents(cell, 0.9 * jnp.asarray(random_rotations(1, 4)[0]), inputs).running
    np.testing.assert_allclose(running[9], np.log(0.9), rtol=1e-12)
    np.testing.assert_array_equal(running[10:, 2:], -np.inf)
    assert np.isfinite(running[10:, :2]).all()


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_gradient_equals_finite_differences(activation):
    cell = rnn(2, 6, activation=activation, recurrent_init="normal(gain=1.5)")
    params = cell.init(jax.random.key(3))
    inputs = jax.random.normal(jax.random.key(4), (20, 2))

    def exponents(params):
        return lyapunov_exponents(cell, params, inputs, burn_in=3).exponents

    def loss(params):
        return jnp.sum(exponents(params)[:2] ** 2)

    # Of a net with dead units the others' growth has its gradient all the same.
    assert np.isneginf(exponents(params)).any() == (activation == "relu")
    found = jax.jit(jax.grad(loss))(params)
    change = jax.tree.map(lambda leaf: jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape), params)
    up, down = (
        loss(jax.tree.map(lambda leaf, d, e=e: leaf + e * d, params, change)) for e in (1e-5, -1e-5)
    )
    expected = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, found, change)))
    np.testing.assert_allclose((up - down) / 2e-5, expected, rtol=1e-6)


def test_gradient_of_the_sum_is_that_of_the_log_determinant():
    w = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)))
    inputs = jnp.zeros((12, 0))
    cell = rnn(0, 4, activation="identity")
    params = cell.init(jax.random.key(0))

    def total(w):
        return jnp.sum(lyapunov_exponents(cell, params | {"W_h": w}, inputs).exponents)

    np.testing.assert_allclose(jax.grad(total)(w), np.linalg.inv(w).T, rtol=1e-9)


def test_vmap_equals_one_at_a_time():
    # One sequence goes in long stretches, one in short ones, one loses two directions.
    batch = np.stack([
        random_rotations(50, 4),
        np.random.default_rng(0).normal(size=(50, 4, 4)),
        random_rotations(50, 4, seed=2) * np.exp([0, -9, -9, -12]),
    ])  # fmt: skip
    batch[2, 20] = np.diag([1, 1, 0, 0])
    inputs = jnp.stack([as_inputs(jacobians) for jacobians in batch])
    together = jax.vmap(lambda x: lyapunov_exponents(given(4), {}, x).exponents)(inputs)
    single = [of_products(jacobians).exponents for jacobians in batch]
    assert np.isneginf(single).sum() == 2
    np.testing.assert_allclose(together, single, rtol=1e-9, atol=1e-9)


def test_frames_of_several_panels():
    matrix = np.random.default_rng(0).normal(size=(70, 90))
    scales = np.linspace(0, -600, 70)
    frame, log_diagonal = jax.jit(log_frame)(jnp.asarray(matrix * np.exp(scales)[:, None]))
    expected = scales + np.log(np.abs(np.diag(np.linalg.qr(matrix.T)[1])))
    np.testing.assert_allclose(log_diagonal, expected, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(frame @ frame.T, np.eye(70), atol=1e-13)


def rows_that_depend(size):
    """Rows of which one depends on others far above it and one is zero; and the rest of them."""
    matrix = np.random.default_rng(0).normal(size=(size, size + 9))
    matrix[-3] = matrix[0] - 3 * matrix[1]
    matrix[2] = 0
    return jnp.asarray(matrix), np.delete(np.arange(size), [2, size - 3])


@pytest.mark.parametrize("size", [6, 40])
def test_frames_of_rows_that_depend_on_others(size):
    matrix, rest = rows_that_depend(size)
    frame, log_diagonal = jax.jit(log_frame)(matrix)
    expected, log_expected = jax.jit(log_frame)(matrix[rest])
    np.testing.assert_allclose(frame[rest], expected, atol=1e-13)
    np.testing.assert_allclose(log_diagonal[rest], log_expected, atol=1e-13)
    np.testing.assert_array_equal(np.delete(frame, rest, axis=0), 0)
    np.testing.assert_array_equal(np.delete(log_diagonal, rest), -np.inf)


@pytest.mark.parametrize("scale", [1.0, 1e-300, 0.0])
def test_the_frame_of_one_row_is_its_direction(scale):
    row = jnp.array([[3.0, -4.0, 12.0]]) * scale
    frame, log_diagonal = jax.jit(log_frame)(row)
    direction = np.array([[3.0, -4.0, 12.0]]) / 13 if scale else np.zeros((1, 3))
    np.testing.assert_allclose(frame, direction, rtol=1e-15)
    size = np.log(13) + np.log(scale) if scale else -np.inf
    np.testing.assert_allclose(log_diagonal, [size], rtol=1e-14)


def test_panels_by_cholesky_are_those_of_householder():
    matrix = np.random.default_rng(0).normal(size=(20, 30)) * np.logspace(0, -5, 20)[:, None]
    matrix[18:] = 0
    frame, diagonal = jax.jit(_cholesky_twice)(jnp.asarray(matrix))
    q, r = np.linalg.qr(matrix[:18].T)
    np.testing.assert_allclose(diagonal[:18], np.abs(np.diag(r)), rtol=1e-13)
    np.testing.assert_allclose(frame[:18], (q * np.sign(np.diag(r))).T, atol=1e-13)
    np.testing.assert_array_equal(frame[18:], 0)
    np.testing.assert_array_equal(diagonal[18:], 0)


def test_derivative_of_frames():
    matrix, rest = rows_that_depend(6)
    change = jnp.cos(jnp.arange(matrix.size)).reshape(matrix.shape)
    up, down = (jax.jit(log_frame)(matrix[rest] + e * change[rest]) for e in (1e-6, -1e-6))
    _, found = jax.jvp(log_frame, (matrix,), (change,))
    for tangent, above, below in zip(found, up, down, strict=True):
        np.testing.assert_allclose(tangent[rest], (above - below) / 2e-6, atol=1e-8)
        np.testing.assert_array_equal(np.delete(tangent, rest, axis=0), 0)


def test_frames_of_nearly_dependent_rows():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(1, 8)) + np.array([[0], [1e-5], [1e-8], [1e-11]]) * rng.normal(
        size=(4, 8)
    )
    frame, log_diagonal = jax.jit(log_frame)(jnp.asarray(matrix))
    expected = np.log(np.abs(np.diag(np.linalg.qr(matrix.T)[1])))
    np.testing.assert_allclose(frame @ frame.T, np.eye(4), atol=1e-14)
    np.testing.assert_allclose(log_diagonal, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_exponents": 0}, r"num_exponents within 1 ... 6, .* got 0\. Remove it"),
        ({"num_exponents": 7}, r"num_exponents within 1 ... 6, .* got 7\. Remove it"),
        ({"burn_in": -1}, r"burn_in within 0 ... 9 for T = 10 steps, got -1\. Give longer"),
        ({"burn_in": 10}, r"burn_in within 0 ... 9 for T = 10 steps, got 10\. Give longer"),
        (
            {"burn_in": 5, "time_reversed": True},
            r"within 0 ... 4 for T = 10 steps that are cut at both ends, got 5\. Give longer",
        ),
        ({"qr_every": 0}, r"qr_every .* at least 1, got 0\. Remove it"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        of_driven(10, **options)
