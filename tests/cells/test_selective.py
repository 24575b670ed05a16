"""Mamba and Mamba-2 against NumPy, their parallel forms, each other, and their exact Jacobians."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import assert_step_matches, random_state

from gradflow.cells.selective import SelectiveCarry, mamba, mamba2
from gradflow.unroll import unroll

T = 7
BOTH = pytest.mark.parametrize("factory", [mamba, mamba2])


def softplus(a):
    return np.log(1 + np.exp(a))


def decays(p, x, negative=False):
    """Those of `mamba` (hidden, state), or of `mamba2` (heads,)."""
    dt = softplus(p["W_dt"] @ x + p["b_dt"])
    A = -np.exp(p["A_log"])
    decay = np.exp(dt.reshape(-1, *[1] * (A.ndim - 1)) * A)
    return 2 * decay - 1 if negative else decay


def mamba_reference(negative):
    def advance(p, carry, x):
        u, dt = p["W_x"] @ x, softplus(p["W_dt"] @ x + p["b_dt"])
        S = decays(p, x, negative) * carry.S + np.outer(dt * u, p["W_B"] @ x)
        return SelectiveCarry(S, S @ (p["W_C"] @ x) + p["D"] * u)

    return advance


def mamba2_reference(p, carry, x):
    heads, size, _ = carry.S.shape
    u, dt = (p["W_x"] @ x).reshape(heads, size), softplus(p["W_dt"] @ x + p["b_dt"])
    S = [decays(p, x)[n] * carry.S[n] + dt[n] * np.outer(u[n], p["W_B"] @ x) for n in range(heads)]
    h = [S[n] @ (p["W_C"] @ x) + p["D"][n] * u[n] for n in range(heads)]
    return SelectiveCarry(np.stack(S), np.concatenate(h))


@pytest.mark.parametrize("negative", [False, True])
def test_a_step_of_mamba_equals_the_reference(negative):
    cell = mamba(3, 4, state_size=5, negative_eigenvalues=negative)
    assert_step_matches(cell, mamba_reference(negative), 3)


@pytest.mark.parametrize("num_heads", [1, 2, 4])
def test_a_step_of_mamba2_equals_the_reference(num_heads):
    assert_step_matches(mamba2(3, 4, num_heads=num_heads, state_size=5), mamba2_reference, 3)


@BOTH
@pytest.mark.parametrize("negative", [False, True])
def test_the_step_jacobian_is_the_diagonal_of_the_decays_at_any_state(factory, negative):
    options = {"negative_eigenvalues": negative} if factory is mamba else {"num_heads": 2}
    cell = factory(3, 4, state_size=2, **options)
    params, carry, x = random_state(cell, 3)
    decay = decays(params, np.asarray(x), negative and factory is mamba)
    diagonal = np.repeat(decay.ravel(), carry.S.size // decay.size)
    assert np.all((diagonal > (-1 if negative else 0)) & (diagonal < 1))
    for size in (1, 100):
        state = SelectiveCarry(size * carry.S, carry.h)
        jacobian = jax.jacobian(lambda s: cell.step(params, s, x)[0])(state)
        found = np.asarray(jacobian.S.S).reshape(len(diagonal), len(diagonal))
        np.testing.assert_allclose(found, np.diag(diagonal), rtol=1e-13, atol=0)
        assert not np.any(jacobian.S.h) and not np.any(jacobian.h.h)  # h is read-only


def test_with_the_option_the_decays_become_negative():
    cell = mamba(1, 2, state_size=3, negative_eigenvalues=True)
    params = cell.init(jax.random.key(0)) | {"b_dt": jnp.array([-40.0, 40.0])}
    state = SelectiveCarry(jnp.ones((2, 3)), jnp.zeros(2))
    S = cell.step(params, state, jnp.zeros(1))[0].S
    np.testing.assert_allclose(S, [[1, 1, 1], [-1, -1, -1]], atol=1e-12)


def test_a_mamba_whose_step_is_constant_is_s4d_real(key):
    """A convolution with the kernel Σ_n C_n B_n Δ exp(-(n + 1) Δ lag) for each channel."""
    cell = mamba(2, 3, state_size=4)
    params = cell.init(key)
    for name in ("W_B", "W_C", "W_dt"):  # the second input is constant, the first goes to u alone
        params[name] = params[name].at[:, 0].set(0)
    params["W_x"] = params["W_x"].at[:, 1].set(0)
    x = jax.random.normal(key, (T,))
    outputs = unroll(cell, params, jnp.stack([x, jnp.ones(T)], axis=1)).outputs
    B, C = params["W_B"][:, 1], params["W_C"][:, 1]
    dt = softplus(params["W_dt"][:, 1] + params["b_dt"])
    for d in range(3):
        lags = np.arange(T)[:, None]
        kernel = np.exp(-dt[d] * np.arange(1, 5) * lags) @ (dt[d] * B * C)
        u = params["W_x"][d, 0] * x
        expected = np.convolve(kernel, u)[:T] + u  # D = 1
        np.testing.assert_allclose(outputs[:, d], expected, rtol=1e-12, atol=1e-13)


def test_the_attention_form_of_mamba2_equals_the_recurrence(key):
    """Y = (L ∘ C Bᵀ) diag(Δ) U + D U for each head, L[t, k] = the product of decays after k."""
    cell = mamba2(3, 6, num_heads=2, state_size=5)
    params, _, _ = random_state(cell, 3)
    X = jax.random.normal(key, (T, 3))
    outputs = unroll(cell, params, X).outputs.reshape(T, 2, 3)
    B, C, U = (X @ params[name].T for name in ("W_B", "W_C", "W_x"))
    dt = softplus(X @ params["W_dt"].T + params["b_dt"])
    for n, u in enumerate(np.moveaxis(U.reshape(T, 2, 3), 1, 0)):
        log_decay = np.cumsum(-dt[:, n] * np.exp(params["A_log"][n]))
        L = np.tril(np.exp(log_decay[:, None] - log_decay))
        expected = (L * (C @ B.T) * dt[:, n]) @ u + params["D"][n] * u
        np.testing.assert_allclose(outputs[:, n], expected, rtol=1e-11, atol=1e-12)


def test_mamba2_with_heads_of_one_channel_is_a_mamba_with_one_decay_per_channel(key):
    pair = mamba2(3, 4, num_heads=4, state_size=5), mamba(3, 4, state_size=5)
    params, _, _ = random_state(pair[0], 3)
    tied = params | {"A_log": jnp.tile(params["A_log"][:, None], (1, 5))}
    inputs = jax.random.normal(key, (T, 3))
    ours, theirs = (
        unroll(*both, inputs).outputs for both in zip(pair, (params, tied), strict=True)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-13)


def test_the_initial_decays_are_those_of_the_papers(key):
    params = mamba(2, 3, state_size=4).init(key)
    np.testing.assert_allclose(-np.exp(params["A_log"]), np.tile([-1, -2, -3, -4], (3, 1)))
    A = np.exp(mamba2(2, 4000, num_heads=4000, state_size=1).init(key)["A_log"])
    counts, _ = np.histogram(A, bins=4, range=(1, 16))
    assert counts.sum() == 4000 and np.all(np.abs(counts - 1000) < 140)


@BOTH
def test_large_inputs_leave_values_and_gradients_finite(factory, key):
    with jax.enable_x64(False):
        cell = factory(3, 4)
        params, inputs = cell.init(key), 1e4 * jax.random.normal(key, (T, 3))
        total = lambda p, x: unroll(cell, p, x).outputs.sum()  # noqa: E731
        value, gradients = jax.value_and_grad(total, (0, 1))(params, inputs)
    assert value.dtype == jnp.float32
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves([value, gradients]))
