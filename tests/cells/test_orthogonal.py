"""The orthogonal RNNs: against NumPy and SciPy, and exactly orthogonal after many steps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from oracle import assert_step_matches, random_state

from gradflow.cells.orthogonal import modrelu, orthogonal
from gradflow.testing import check_cell
from gradflow.unroll import unroll

METHODS = ["cayley", "exponential"]
SIZE = 5


def skew_matrix(entries, n):
    A, k = np.zeros((n, n)), 0
    for i in range(n):
        for j in range(i + 1, n):
            A[i, j], A[j, i] = entries[k], -entries[k]
            k += 1
    return A


def recurrent_matrix(entries, n, method, num_negative):
    A, eye = skew_matrix(entries, n), np.eye(n)
    Q = scipy.linalg.expm(A) if method == "exponential" else np.linalg.inv(eye + A) @ (eye - A)
    return Q @ np.diag([1.0] * (n - num_negative) + [-1.0] * num_negative)


def reference_modrelu(a, b):
    return np.where(np.abs(a.real) + b >= 0, a + b * np.sign(a.real), 0)


def linear_jacobian(cell, params, n):
    return jax.jacobian(lambda h: cell.step(params, h, jnp.ones(3))[0])(jnp.ones(n))


@pytest.mark.parametrize(
    "method, num_negative, activation",
    [
        ("cayley", 2, "modrelu"),
        ("cayley", 0, "tanh"),
        ("exponential", 0, "modrelu"),
        ("exponential", 2, "tanh"),
    ],
)
def test_step_equals_the_reference(method, num_negative, activation):
    def reference(p, h, x):
        a = p["W_x"] @ x + recurrent_matrix(p["A"], SIZE, method, num_negative) @ h
        return reference_modrelu(a, p["b"]) if activation == "modrelu" else np.tanh(a + p["b"])

    cell = orthogonal(3, SIZE, method=method, num_negative=num_negative, activation=activation)
    assert_step_matches(cell, reference, 3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size, num_negative", [(1, 0), (1, 1), (6, 0), (7, 3)])
def test_matrix_is_orthogonal_with_the_expected_determinant(method, size, num_negative, key):
    cell = orthogonal(3, size, method=method, num_negative=num_negative, activation="identity")
    for params in (cell.init(key), random_state(cell, 3)[0]):
        W = linear_jacobian(cell, params, size)
        np.testing.assert_allclose(W @ W.T, np.eye(size), atol=1e-12)
        np.testing.assert_allclose(np.linalg.det(W), (-1.0) ** num_negative, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_gradient_norm_is_constant_over_500_steps(method):
    cell = orthogonal(3, 6, method=method, activation="identity", num_negative=1)
    params, h, _ = random_state(cell, 3)
    inputs = jax.random.normal(jax.random.key(2), (500, 3))
    end = jax.jacfwd(lambda s: unroll(cell, params, inputs, carry=s).outputs[-1])(h)
    np.testing.assert_allclose(np.linalg.svd(end, compute_uv=False), 1, atol=1e-11)


def test_scaled_cayley_form_satisfies_the_cell_contract():
    check_cell(functools.partial(orthogonal, method="cayley", num_negative=2))


@pytest.mark.parametrize("skew_init", ["henaff", "cayley"])
def test_initial_skew_matrix_is_block_diagonal_with_the_named_distribution(skew_init, key):
    n = 401  # odd: the last unit has no partner
    A = skew_matrix(np.asarray(orthogonal(2, n, skew_init=skew_init).init(key)["A"]), n)
    pairs = np.arange(0, n - 1, 2)
    s = A[pairs, pairs + 1]
    A[pairs, pairs + 1] = A[pairs + 1, pairs] = 0
    np.testing.assert_array_equal(A, 0)
    uniform = s / (2 * np.pi) + 0.5 if skew_init == "henaff" else -np.arctan(s) * 4 / np.pi
    # 200 uniform numbers: each quartile holds 50, give or take 6.1.
    counts, _ = np.histogram(uniform, bins=4, range=(0, 1))
    assert counts.sum() == 200 and np.all(np.abs(counts - 50) < 25)


def test_initial_matrix_of_each_method_is_that_of_its_paper(key):
    for method, skew_init in [("cayley", "cayley"), ("exponential", "henaff")]:
        default = orthogonal(2, 6, method=method).init(key)
        named = orthogonal(2, 6, method=method, skew_init=skew_init).init(key)
        np.testing.assert_array_equal(default["A"], named["A"])


def test_cayley_initialiser_gives_rotations_of_at_most_a_quarter_turn(key):
    cell = orthogonal(3, 8, method="cayley", activation="identity")
    angles = np.angle(np.linalg.eigvals(linear_jacobian(cell, cell.init(key), 8)))
    assert np.all(np.abs(angles) <= np.pi / 2)


def test_modrelu_adds_its_bias_to_the_absolute_value_or_returns_zero():
    a = jnp.array([-2.0, -0.5, 0.0, 0.5, 2.0])
    for bias, values in [
        (-1.0, [-1, 0, 0, 0, 1]),
        (0.0, [-2, -0.5, 0, 0.5, 2]),
        (1.0, [-3, -1.5, 0, 1.5, 3]),
    ]:
        np.testing.assert_array_equal(modrelu(a, jnp.full(5, bias)), values)


@pytest.mark.parametrize("method", METHODS)
def test_initial_network_is_linear_also_at_its_initial_carry(method, key):
    cell = orthogonal(0, 4, method=method)
    params = cell.init(key)
    at = jax.jacobian(lambda h: cell.step(params, h, jnp.zeros(0))[0])
    np.testing.assert_allclose(at(cell.initial_carry()), at(jnp.ones(4)), rtol=1e-15)
