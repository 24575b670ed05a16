"""The LRU against complex NumPy, its exact gradient at a long lag, and its initial distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import assert_step_matches, random_state

from gradflow.cells.lru import lru
from gradflow.cells.unitary import ComplexCarry
from gradflow.unroll import unroll


def eigenvalues(params):
    return np.exp(-np.exp(np.asarray(params["nu"])) + 1j * np.exp(np.asarray(params["theta"])))


def test_step_equals_the_reference():
    def reference(p, carry, x):
        # Real and imaginary parts apart, so that each may itself take a complex step.
        lam = eigenvalues(p)
        W = np.exp(p["gamma"])[:, None] * (p["W_x"]["re"] + 1j * p["W_x"]["im"])
        re = lam.real * carry.re - lam.imag * carry.im + W.real @ x
        return ComplexCarry(re, lam.imag * carry.re + lam.real * carry.im + W.imag @ x)

    assert_step_matches(lru(3, 4), reference, 3)


def test_gradient_is_the_power_of_the_eigenvalue(key):
    cell = lru(2, 3, r_min=0.95, r_max=0.999)
    params, lag = cell.init(key), 200
    inputs = jax.random.normal(key, (lag, 2))

    def end(carry):
        return unroll(cell, params, inputs, carry=carry).outputs[-1]

    product = jax.jacobian(end)(cell.initial_carry())
    power = np.diag(eigenvalues(params) ** lag)
    np.testing.assert_allclose(product.re, np.vstack([power.real, power.imag]), atol=1e-13)
    np.testing.assert_allclose(product.im, np.vstack([-power.imag, power.real]), atol=1e-13)


def test_initial_eigenvalues_are_uniform_on_their_sector_of_the_ring(key):
    lam = eigenvalues(lru(2, 4000, r_min=0.4, r_max=0.8, max_phase=0.3).init(key))
    for values, bounds in ((np.abs(lam) ** 2, (0.16, 0.64)), (np.angle(lam), (0, 0.3))):
        counts, _ = np.histogram(values, bins=4, range=bounds)
        # A quarter of 4000 numbers each, give or take 27.
        assert counts.sum() == 4000 and np.all(np.abs(counts - 1000) < 140)


@pytest.mark.parametrize("r_min, r_max", [(0.0, 1.0), (0.9999, 1.0), (0.0, 1e-3)])
@pytest.mark.parametrize("x64", [True, False])
def test_the_initial_parameters_are_finite_up_to_the_unit_circle(r_min, r_max, x64, key):
    with jax.enable_x64(x64):
        params = lru(2, 20000, r_min=r_min, r_max=r_max).init(key)
        radius = np.exp(-np.exp(np.asarray(params["nu"], float)))
        assert params["nu"].dtype == (jnp.float64 if x64 else jnp.float32)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    assert np.all((radius < 1) & (radius >= r_min * (1 - 1e-6)) & (radius <= r_max * (1 + 1e-6)))


def test_normaliser_compensates_the_decay(key):
    params = lru(2, 100, r_min=0.3, r_max=0.999).init(key)
    total = np.exp(2 * params["gamma"]) + np.abs(eigenvalues(params)) ** 2
    np.testing.assert_allclose(total, 1, rtol=1e-13)


def test_white_inputs_give_a_state_of_the_variance_of_its_input(key):
    # E|s|² = exp(2 gamma) E|W_x x|² / (1 - |λ|²) = E|W_x x|², which is 1 for x ~ N(0, I).
    cell = lru(3, 400, r_min=0.5, r_max=0.9)
    k_params, k_inputs = jax.random.split(key)
    params, inputs = cell.init(k_params), jax.random.normal(k_inputs, (300, 3))
    carries = unroll(cell, params, inputs).carries
    size = np.mean(carries.re[50:] ** 2 + carries.im[50:] ** 2)
    np.testing.assert_allclose(size, 1, rtol=0.1)


def test_hidden_state_is_the_whole_carry():
    cell = lru(3, 4)
    carry, h = cell.step(*random_state(cell, 3))
    np.testing.assert_array_equal(h, np.concatenate([carry.re, carry.im]))
