"""Step Jacobians far below the smallest number, whose factors are not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradflow import flow
from gradflow.cell import Cell

T, SIZE = 6, 3
TINY = {"float64": 1e-155, "float32": 1e-22}
ROTATION = np.linalg.qr(np.random.default_rng(0).normal(size=(SIZE, SIZE)))[0]
VALUES = np.array([3.0, 1.0, 0.5])


def twice_tiny():
    """s_t = a · (a · (Q diag(3, 1, 1/2) s_{t-1})) + x_t: a² is no normal number, a is."""

    def step(params, s, x):
        s = params["a"] * (params["a"] * (params["W"] @ s)) + x
        return s, s

    def init(key):
        return {"a": jnp.full(SIZE, TINY["float64"]), "W": jnp.asarray(ROTATION * VALUES)}

    return Cell(init, step, lambda: jnp.zeros(SIZE))


def measured(measure, dtype="float64", **options):
    cell = twice_tiny()
    params = cell.init(None) | {"a": jnp.full(SIZE, TINY[dtype])}
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    return measure(cell=cell, params=params, inputs=jnp.ones((T, SIZE), dtype), **options)


def log_products():
    """The log singular values of the products of Q diag(3, 1, 1/2), at every lag."""
    step, product, found = ROTATION * VALUES, np.eye(SIZE), []
    for _ in range(T + 1):
        found.append(np.log(np.linalg.svd(product, compute_uv=False)))
        product = step @ product
    return np.array(found)


def scale(dtype):
    return 2 * np.log(float(jnp.asarray(TINY[dtype], dtype))) * np.arange(T + 1)


@pytest.mark.parametrize("dtype", TINY)
@pytest.mark.parametrize("norm", ["spectral", "frobenius"])
def test_log_norms(norm, dtype):
    values = log_products()
    expected = values[:, 0] if norm == "spectral" else np.log(np.exp(2 * values).sum(1)) / 2
    found = measured(flow.log_norms, dtype, norm=norm)
    np.testing.assert_allclose(found, expected + scale(dtype), rtol=1e-6)
    if dtype == "float64":
        np.testing.assert_allclose(found, expected + scale(dtype), rtol=1e-12)


def test_the_map():
    found = measured(flow.log_norm_map)
    np.testing.assert_allclose(found[-1][::-1], log_products()[:, 0] + scale("float64"), rtol=1e-9)


def test_singular_values():
    expected = log_products() + scale("float64")[:, None]
    found = measured(flow.log_singular_values)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    lags = [0, 1, 3]
    leading = measured(flow.leading_singular_values, lags=lags)
    np.testing.assert_allclose(leading, expected[lags], rtol=1e-12)


@pytest.mark.parametrize("options", [{}, {"qr_every": 1}, {"time_reversed": True}])
def test_exponents(options):
    found = measured(flow.lyapunov_exponents, **options).exponents
    expected = 2 * np.log(TINY["float64"]) + np.log(VALUES).mean()
    np.testing.assert_allclose(found.mean(), expected, rtol=1e-12)
    assert np.isfinite(found).all()


def test_their_gradient():
    def total(W):
        cell, params = twice_tiny(), twice_tiny().init(None) | {"W": W}
        return flow.lyapunov_exponents(cell, params, jnp.ones((T, SIZE))).exponents.sum()

    W = jnp.asarray(ROTATION * VALUES)
    np.testing.assert_allclose(jax.grad(total)(W), np.linalg.inv(W).T, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", TINY)
def test_adjoints_and_components(dtype):
    def loss(outputs):
        return jnp.sum(outputs[-1])

    found = measured(flow.log_adjoint_norms, dtype, loss=loss)
    row, expected = np.ones(SIZE), []
    for _ in range(T + 1):
        expected.append(np.log(np.linalg.norm(row)))
        row = row @ (ROTATION * VALUES)
    expected = (np.array(expected) + scale(dtype))[::-1]
    tolerance = 1e-12 if dtype == "float64" else 3e-6
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
    shares = measured(flow.components, dtype, loss=loss)
    # The share of step k in W is a² (∂L/∂s_k) ⊗ s_{k-1}, where s_{k-1} is (1, 1, 1) from k = 2 on.
    inner = found[1:] + scale(dtype)[1] + 0.5 * np.log(SIZE)
    assert jnp.isneginf(shares["W"][0])
    np.testing.assert_allclose(shares["W"][1:], inner[1:], rtol=1e-6)
