"""The unitary RNNs: against dense complex matrices, and exactly unitary after many steps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from oracle import assert_step_matches, random_state

from gradflow.cells.unitary import ComplexCarry, complex_modrelu, full_unitary, unitary
from gradflow.testing import check_cell
from gradflow.unroll import unroll

SIZE = 4


def evolution_matrix(p, n, permutation_seed=0):
    """D_3 R_2 F⁻¹ D_2 Π R_1 F D_1, every factor as a dense matrix."""

    def reflection(part):
        v = (part["re"] + 1j * part["im"])[:, None]
        return np.eye(n) - 2 * v @ v.conj().T / (v.conj().T @ v)

    D = [np.diag(np.exp(1j * p[f"D_{j}"])) for j in (1, 2, 3)]
    F = np.exp(-2j * np.pi * np.outer(np.arange(n), np.arange(n)) / n) / np.sqrt(n)
    permutation = np.eye(n)[np.random.default_rng(permutation_seed).permutation(n)]
    factors = [D[2], reflection(p["R_2"]), F.conj().T, D[1], permutation, reflection(p["R_1"])]
    return np.linalg.multi_dot([*factors, F, D[0]])


def full_matrix(p, n, method):
    B, C, b, c = np.zeros((n, n)), np.zeros((n, n)), list(p["B"]), list(p["C"])
    for i in range(n):
        C[i, i] = c.pop(0)
        for j in range(i + 1, n):
            B[i, j] = b.pop(0)
            B[j, i] = -B[i, j]
            C[i, j] = C[j, i] = c.pop(0)
    A, eye = B + 1j * C, np.eye(n)
    if method == "exponential":
        return scipy.linalg.expm(A)
    return np.linalg.inv(eye + A) @ (eye - A)


def reference_step(W, p, carry, x):
    # Real and imaginary parts apart, so that each may itself take a complex step.
    re = W.real @ carry.re - W.imag @ carry.im + p["W_x"]["re"] @ x
    im = W.imag @ carry.re + W.real @ carry.im + p["W_x"]["im"] @ x
    modulus = np.sqrt(re**2 + im**2)
    scale = np.where(modulus.real + p["b"] >= 0, 1 + p["b"] / modulus, 0)
    return ComplexCarry(scale * re, scale * im)


def make(name):
    factory, options = {
        "evolution": (unitary, {}),
        "exponential": (full_unitary, {"method": "exponential"}),
        "cayley": (full_unitary, {"method": "cayley"}),
    }[name]
    return lambda input_size, hidden_size: factory(input_size, hidden_size, **options)


NAMES = ["evolution", "exponential", "cayley"]


def without_bias(params):
    return params | {"b": jnp.zeros_like(params["b"])}


def flat_jacobian(cell, params, n):
    def step(s):
        return cell.step(params, ComplexCarry(*jnp.split(s, 2)), jnp.ones(3))[1]

    return np.asarray(jax.jacobian(step)(jnp.arange(1.0, 2 * n + 1)))


@pytest.mark.parametrize("permutation_seed", [0, 3])
def test_step_equals_dense_complex_matrices(permutation_seed):
    def reference(p, carry, x):
        return reference_step(evolution_matrix(p, SIZE, permutation_seed), p, carry, x)

    cell = unitary(3, SIZE, permutation_seed=permutation_seed)
    assert_step_matches(cell, reference, 3)


@pytest.mark.parametrize("method", ["exponential", "cayley"])
def test_step_of_the_full_unitary_equals_complex_matrices(method):
    def reference(p, carry, x):
        return reference_step(full_matrix(p, SIZE, method), p, carry, x)

    assert_step_matches(full_unitary(3, SIZE, method=method), reference, 3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1, 5])
def test_matrix_is_unitary(name, size, key):
    cell = make(name)(3, size)
    for params in (cell.init(key), without_bias(random_state(cell, 3)[0])):
        J = flat_jacobian(cell, params, size)
        np.testing.assert_allclose(J @ J.T, np.eye(2 * size), atol=1e-12)
        turn = np.kron([[0, -1], [1, 0]], np.eye(size))  # the product with i
        np.testing.assert_allclose(J @ turn, turn @ J, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_norm_is_constant_over_500_steps(name):
    cell = make(name)(3, 3)
    params, carry, _ = random_state(cell, 3)
    inputs = jax.random.normal(jax.random.key(2), (500, 3))

    def end(s):
        carry = ComplexCarry(*jnp.split(s, 2))
        return unroll(cell, without_bias(params), inputs, carry=carry).outputs[-1]

    product = jax.jacfwd(end)(jnp.concatenate(carry))
    np.testing.assert_allclose(np.linalg.svd(product, compute_uv=False), 1, atol=1e-11)


def test_cayley_form_satisfies_the_cell_contract():
    check_cell(functools.partial(full_unitary, method="cayley"))


@pytest.mark.parametrize("name", NAMES)
def test_initial_network_is_linear_also_at_its_initial_carry(name, key):
    cell = make(name)(0, 3)
    params = cell.init(key)

    def jacobian(carry):
        return jax.jacobian(lambda c: cell.step(params, c, jnp.zeros(0))[1])(carry)

    elsewhere = ComplexCarry(jnp.ones(3), jnp.arange(3.0))
    at_zero, at_others = jacobian(cell.initial_carry()), jacobian(elsewhere)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-15), at_zero, at_others)


@pytest.mark.parametrize("name", NAMES)
def test_no_leaf_is_complex(name, key):
    cell = make(name)(3, 2)
    leaves = jax.tree.leaves((cell.init(key), cell.initial_carry()))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float64")}


def test_complex_modrelu_keeps_the_phase():
    a = np.array([3 + 4j, -3 - 4j, 0.3 + 0.4j, 5j, 0])
    for bias in (-1.0, 0.0, 1.0):
        expected = np.maximum(np.abs(a[:4]) + bias, 0) * np.exp(1j * np.angle(a[:4]))
        re, im = complex_modrelu(jnp.array(a.real), jnp.array(a.imag), jnp.full(5, bias))
        np.testing.assert_allclose(np.asarray(re + 1j * im)[:4], expected, rtol=1e-14, atol=1e-15)
        assert re[4] == im[4] == 0


@pytest.mark.parametrize("bias", [-1.0, 0.0, 1.0])
def test_complex_modrelu_has_finite_derivatives_at_zero(bias):
    zero, b = jnp.zeros(1), jnp.full(1, bias)
    derivatives = jax.jacobian(complex_modrelu, argnums=(0, 1, 2))(zero, zero, b)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(derivatives))


def test_initial_parameters_follow_the_distributions_of_the_paper(key):
    params = unitary(2, 4000).init(key)
    for j in (1, 2, 3):
        _assert_uniform(params[f"D_{j}"], np.pi)
    for j in (1, 2):
        _assert_uniform(params[f"R_{j}"]["re"], 1)
        _assert_uniform(params[f"R_{j}"]["im"], 1)
    np.testing.assert_array_equal(params["b"], 0)


def _assert_uniform(values, bound):
    counts, _ = np.histogram(values, bins=4, range=(-bound, bound))
    # A quarter of 4000 numbers each, give or take 27.
    assert counts.sum() == 4000 and np.all(np.abs(counts - 1000) < 140)


@pytest.mark.parametrize("method, limit", [("exponential", np.pi), ("cayley", np.pi / 2)])
def test_initial_full_unitary_is_diagonal(method, limit, key):
    cell = full_unitary(3, 6, method=method)
    W = full_matrix(jax.tree.map(np.asarray, cell.init(key)), 6, method)
    np.testing.assert_allclose(W, np.diag(np.diag(W)), atol=1e-15)
    angles = np.abs(np.angle(np.diag(W)))
    assert np.all(angles <= limit) and np.all(angles > 0)


def test_the_permutation_is_fixed_by_its_seed(key):
    carry = ComplexCarry(jnp.ones(8), jnp.arange(8.0))

    def h(seed):
        cell = unitary(2, 8, permutation_seed=seed)
        return cell.step(cell.init(key), carry, jnp.ones(2))[1]

    np.testing.assert_array_equal(h(1), h(1))
    assert np.abs(h(1) - h(2)).max() > 0.1
