"""The RG-LRU against NumPy, its exact Jacobian, its variance, and gates that underflow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import assert_step_matches, random_state, sigmoid

from gradflow.cells.griffin import rg_lru
from gradflow.unroll import unroll


def decay(p, x, c=8.0):
    return sigmoid(p["Lambda"]) ** (c * sigmoid(p["r"]["W_x"] @ x + p["r"]["b"]))


def reference(c):
    def advance(p, h, x):
        a, i = decay(p, x, c), sigmoid(p["i"]["W_x"] @ x + p["i"]["b"])
        return a * h + np.sqrt(1 - a**2) * i * (p["W_x"] @ x)

    return advance


@pytest.mark.parametrize("input_size, c, seed", [(3, 8.0, 0), (3, 2.5, 1), (0, 8.0, 2)])
def test_step_equals_the_reference(input_size, c, seed):
    # Larger 1 - a than at initialisation: the reference has no digits of 1 - a² where a is near 1.
    cell = rg_lru(input_size, 4, c=c, a_min=0.2, a_max=0.7)
    assert_step_matches(cell, reference(c), input_size, seed)


def test_step_jacobian_is_the_diagonal_of_the_decay_at_any_state():
    cell = rg_lru(3, 4)
    params, h, x = random_state(cell, 3)
    a = decay(params, np.asarray(x))
    assert np.all((a > 0) & (a < 1))
    for state in (h, 100 * h):
        jacobian = jax.jacobian(lambda h: cell.step(params, h, x)[0])(state)
        np.testing.assert_allclose(jacobian, np.diag(a), rtol=1e-13, atol=0)


def test_gates_are_those_of_the_step():
    cell = rg_lru(3, 4)
    params, h, x = random_state(cell, 3)
    gates = cell.gates(params, h, x)
    np.testing.assert_allclose(gates["r"], sigmoid(params["r"]["W_x"] @ x + params["r"]["b"]))
    np.testing.assert_allclose(gates["i"], sigmoid(params["i"]["W_x"] @ x + params["i"]["b"]))


def test_white_inputs_keep_their_variance(key):
    # With constant gates, E h² = E (i u)² for any decay.
    cell = rg_lru(3, 400, a_min=0.3, a_max=0.95)
    params = cell.init(key)
    for gate, bias in (("r", 1.0), ("i", 40.0)):
        zeros = jnp.zeros_like(params[gate]["W_x"])
        params[gate] = {"W_x": zeros, "b": jnp.full(400, bias)}
    inputs = jax.random.normal(jax.random.key(1), (600, 3))
    outputs = unroll(cell, params, inputs).outputs[100:]
    variance = np.sum(np.asarray(params["W_x"]) ** 2, axis=1)
    np.testing.assert_allclose(np.mean(outputs**2 / variance), 1, rtol=0.1)


@pytest.mark.parametrize("bounds", [(0.9, 0.999), (1e-6, 0.5)])
@pytest.mark.parametrize("x64", [True, False])
def test_initial_decays_are_uniform(bounds, x64, key):
    with jax.enable_x64(x64):
        params = rg_lru(2, 4000, a_min=bounds[0], a_max=bounds[1]).init(key)
        a = np.exp(8 * np.asarray(jax.nn.log_sigmoid(params["Lambda"]), float))
    assert params["Lambda"].dtype == (jnp.float64 if x64 else jnp.float32)
    counts, _ = np.histogram(a, bins=4, range=(bounds[0] - 1e-6, bounds[1] + 1e-6))
    assert counts.sum() == 4000 and np.all(np.abs(counts - 1000) < 140)


def test_an_initial_decay_near_one_keeps_its_digits(key):
    a = 1 - 50 * 2.0**-24  # a number of float32, whose eighth root is none
    with jax.enable_x64(False):
        Lambda = np.float64(rg_lru(2, 1, a_min=a, a_max=a).init(key)["Lambda"])
    np.testing.assert_allclose(-8 * np.logaddexp(0, -Lambda), np.log(a), rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("bias", [-1000.0, 1000.0])
def test_gates_that_underflow_leave_values_and_gradients_finite(bias, dtype, key):
    cell = rg_lru(2, 3)
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), cell.init(key))
    params["r"]["b"] = jnp.full(3, bias, dtype)
    h, x = jnp.ones(3, dtype), jnp.ones(2, dtype)
    new = cell.step(params, h, x)[0]
    assert new.dtype == dtype
    if bias < 0:  # r = 0: the state is kept
        np.testing.assert_allclose(new, h, rtol=1e-15)
    jacobians = jax.jacobian(lambda *point: cell.step(*point)[0], (0, 1, 2))(params, h, x)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jacobians))


def test_the_derivative_by_the_gate_is_exact_down_to_a_tiny_gate():
    # ∂h/∂b^r ≈ √(2 c κ r)/2 · i u for r → 0, with κ = -log a: it shrinks and is not cut.
    cell = rg_lru(1, 1)
    params = {
        "r": {"W_x": jnp.zeros((1, 1)), "b": jnp.array([-100.0])},
        "i": {"W_x": jnp.zeros((1, 1)), "b": jnp.zeros(1)},
        "W_x": jnp.ones((1, 1)),
        "Lambda": jnp.zeros(1),
    }
    by_r = jax.jacobian(lambda p: cell.step(p, jnp.zeros(1), jnp.ones(1))[0])(params)["r"]["b"]
    r = np.exp(-100.0)
    np.testing.assert_allclose(by_r.item(), np.sqrt(16 * np.log(2) * r) / 4, rtol=1e-10)
