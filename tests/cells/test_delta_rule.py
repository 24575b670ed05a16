"""DeltaNet and gated DeltaNet against NumPy, their parallel form, and their reflections."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrix_states import HEADS, on_each_row, sample, sigmoid, silu, split, transitions, unit
from oracle import assert_step_matches

from gradflow.cells.delta_rule import deltanet, gated_deltanet
from gradflow.cells.heads import MatrixCarry
from gradflow.unroll import unroll

FACTORIES = pytest.mark.parametrize("factory", [deltanet, gated_deltanet])
RANGES = pytest.mark.parametrize("negative", [False, True])


def terms(params, x, negative):
    """q, k, v, α and β of every head."""
    a = split(params, x)
    rates = np.ones(HEADS)
    if "alpha" in params:
        softplus = np.log(1 + np.exp(np.concatenate(a["alpha"])))
        rates = np.exp(-np.exp(params["alpha"]["log_A"]) * softplus)
    return [
        (unit(silu(q)), unit(silu(k)), silu(v), alpha, (1 + negative) * sigmoid(beta))
        for q, k, v, alpha, beta in zip(a["q"], a["k"], a["v"], rates, a["beta"], strict=True)
    ]


def matrix(k, alpha, beta):
    return alpha * (np.eye(3) - beta * np.outer(k, k))


@FACTORIES
@RANGES
def test_step_equals_the_reference(factory, negative):
    def reference(params, carry, x):
        S, h = [], []
        for before, (q, k, v, alpha, beta) in zip(carry.S, terms(params, x, negative), strict=True):
            S.append(before @ matrix(k, alpha, beta) + beta * np.outer(v, k))
            h.append(S[-1] @ q)
        return MatrixCarry(np.stack(S), np.concatenate(h))

    cell = factory(3, 6, num_heads=HEADS, negative_eigenvalues=negative)
    assert_step_matches(cell, reference, 3)


@FACTORIES
@RANGES
def test_every_row_of_the_state_has_the_same_step_matrix(factory, negative):
    cell = factory(3, 6, num_heads=HEADS, negative_eigenvalues=negative)
    jacobian, params, _, x = transitions(cell)
    heads = terms(params, x, negative)
    expected = on_each_row([matrix(k, alpha, beta) for _, k, _, alpha, beta in heads])
    np.testing.assert_allclose(jacobian, expected, atol=1e-15)
    values = np.unique(np.linalg.eigvalsh(jacobian).round(10))
    named = [value for *_, a, b in heads for value in (a, a * (1 - b.item()))]
    np.testing.assert_allclose(values, np.unique(np.round(named, 10)), atol=1e-9)
    assert values.min() > (-1 if negative else 0) and values.max() <= 1


@FACTORIES
@RANGES
def test_recurrence_equals_the_parallel_form(factory, negative):
    """O = (Q Kᵀ ∘ Γ) U with (I + tril(diag(β) (K Kᵀ ∘ Γ), -1)) U = diag(β) V."""
    params, inputs, outputs = sample(factory(3, 6, num_heads=HEADS, negative_eigenvalues=negative))
    steps = [terms(params, x, negative) for x in inputs]
    for i in range(HEADS):
        q, k, v, alpha, beta = (np.stack(a) for a in zip(*[s[i] for s in steps], strict=True))
        logs = np.cumsum(np.log(alpha))
        decays = np.tril(np.exp(logs[:, None] - logs))
        system = np.eye(len(inputs)) + np.tril(beta * (k @ k.T * decays), -1)
        expected = (q @ k.T * decays) @ np.linalg.solve(system, beta * v)
        np.testing.assert_allclose(outputs[:, 3 * i : 3 * i + 3], expected, rtol=1e-11, atol=1e-14)


def with_beta(params, value):
    """The parameters with W_x^β such that β is σ(value) or 2 σ(value) for x_0 = 1."""
    W_x = jnp.zeros((HEADS, 3)).at[:, 0].set(value)
    return params | {"beta": {"W_x": W_x}}


def test_a_gate_of_1_gives_deltanet_back():
    gated, plain = (f(3, 6, num_heads=HEADS) for f in (gated_deltanet, deltanet))
    params, inputs, outputs = sample(plain)
    open_gate = {"W_x": np.ones((HEADS, 3)), "b": np.ones(HEADS), "log_A": np.full(HEADS, -800.0)}
    params, inputs = jax.tree.map(jnp.asarray, (params | {"alpha": open_gate}, inputs))
    np.testing.assert_array_equal(unroll(gated, params, inputs).outputs, outputs)


@pytest.mark.parametrize(
    "negative, value, eigenvalue", [(True, 40.0, -1), (True, 0.0, 0), (False, 40.0, 0)]
)
def test_step_is_a_reflection_at_beta_2_and_a_projection_at_1(negative, value, eigenvalue):
    cell = deltanet(3, 6, num_heads=HEADS, negative_eigenvalues=negative)
    params, carry = with_beta(sample(cell)[0], value), cell.initial_carry()
    x = jnp.array([1.0, 0.3, -0.7])
    step = lambda S: cell.step(params, carry._replace(S=S), x)[0].S.ravel()  # noqa: E731
    J = np.asarray(jax.jacobian(step)(carry.S)).reshape(18, 18)
    np.testing.assert_allclose(J, J.T, atol=1e-15)
    np.testing.assert_allclose(J @ J, np.eye(18) if eigenvalue else J, atol=1e-14)
    np.testing.assert_allclose(np.linalg.eigvalsh(J)[:6], eigenvalue, atol=1e-14)


def test_a_key_reads_the_value_that_was_last_stored_under_it():
    """With β = 1 the value replaces the old one, and values under orthogonal keys stay."""
    cell = deltanet(3, 3)
    # The first two inputs select the keys (0, 1, 0) and (0, 0, 1), the third is the value.
    W_k = np.array([[0, 0, 0], [9, 0, 0], [0, 9, 0]])
    params = {
        "q": {"W_x": W_k},
        "k": {"W_x": W_k},
        "v": {"W_x": np.array([[0, 0, 1.0]] * 3)},
        "beta": {"W_x": np.array([[40.0, 40.0, 0.0]])},
    }
    params = jax.tree.map(jnp.asarray, params)
    inputs = jnp.array([[1.0, 0, 2], [0, 1, 3], [1, 0, -4]])
    carries, outputs = unroll(cell, params, inputs)
    np.testing.assert_allclose(outputs[:, 0], silu(inputs[:, 2]), rtol=1e-12)
    stored = np.tile([0, silu(-4.0), silu(3.0)], (3, 1))
    np.testing.assert_allclose(carries.S[-1, 0], stored, atol=1e-15)


def test_initial_rates_of_a_gated_deltanet_are_those_of_mamba2(key):
    params = gated_deltanet(2, 4000, num_heads=4000).init(key)["alpha"]
    A, dt = np.exp(params["log_A"]), np.log(1 + np.exp(params["b"]))
    for values, bounds in ((A, (0, 16)), (np.log10(dt), (-3, -1))):
        counts, _ = np.histogram(values, bins=4, range=bounds)
        assert counts.sum() == 4000 and np.all(np.abs(counts - 1000) < 140)
