"""Layer-normalised cells against their equations and the invariances of normalisation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import assert_step_matches, random_state, sigmoid

from gradflow.cells.layer_norm import gru_layer_norm, lstm_layer_norm, normalise
from gradflow.cells.lstm import LSTMCarry

BOTH = pytest.mark.parametrize("factory", [lstm_layer_norm, gru_layer_norm])


def layer_norm(z, eps=1e-5):
    return (z - z.mean()) / np.sqrt(((z - z.mean()) ** 2).mean() + eps)


def products(params, gates, side, v, per_gate):
    """The paper's LN(W v; gain, 0), over the stacked rows of all gates or of each separately."""
    W, gain = f"W_{side}", f"gain_{side}"
    groups = [[q] for q in gates] if per_gate else [list(gates)]
    done = {}
    for group in groups:
        z = layer_norm(np.concatenate([params[q][W] for q in group]) @ v)
        parts = zip(group, np.split(z, len(group)), strict=True)
        done |= {q: params[q][gain] * part for q, part in parts}
    return done


def lstm_reference(per_gate):
    def reference(params, carry, x):
        h, c = carry
        by_h = products(params, "ifgo", "h", h, per_gate)
        by_x = products(params, "ifgo", "x", x, per_gate)
        i, f, g, o = (by_h[q] + by_x[q] + params[q]["b"] for q in "ifgo")
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return LSTMCarry(
            sigmoid(o) * np.tanh(params["c"]["gain"] * layer_norm(c) + params["c"]["b"]), c
        )

    return reference


def gru_reference(per_gate):
    def reference(params, h, x):
        by_h = products(params, "rz", "h", h, per_gate)
        by_x = products(params, "rz", "x", x, per_gate)
        r, z = (sigmoid(by_h[q] + by_x[q] + params[q]["b"]) for q in "rz")
        n = params["n"]
        from_x = n["gain_x"] * layer_norm(n["W_x"] @ x) + n["b"]
        from_h = n["gain_h"] * layer_norm(n["W_h"] @ h) + n["b_h"]
        return (1 - z) * np.tanh(from_x + r * from_h) + z * h

    return reference


@pytest.mark.parametrize("per_gate", [False, True])
@pytest.mark.parametrize("input_size", [3, 0])
@pytest.mark.parametrize(
    "factory, reference", [(lstm_layer_norm, lstm_reference), (gru_layer_norm, gru_reference)]
)
def test_step_equals_the_reference(factory, reference, per_gate, input_size):
    cell = factory(input_size, 4, per_gate=per_gate)
    assert_step_matches(cell, reference(per_gate), input_size)


def scaled(params, factors):
    return params | {q: params[q] | {"W_h": s * params[q]["W_h"]} for q, s in factors.items()}


@BOTH
def test_step_is_invariant_to_the_scale_of_the_recurrent_weights(factory):
    cell = factory(3, 4, eps=1e-24)
    params, carry, x = random_state(cell, 3)
    larger = scaled(params, {q: 7.0 for q in params if q != "c"})
    expected, _ = cell.step(params, carry, x)
    after, _ = cell.step(larger, carry, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), after, expected)


@pytest.mark.parametrize("per_gate", [False, True])
@pytest.mark.parametrize("factory, gate", [(lstm_layer_norm, "f"), (gru_layer_norm, "r")])
def test_step_is_invariant_to_the_scale_of_one_gate_only_if_gates_are_normalised_separately(
    factory, gate, per_gate
):
    cell = factory(3, 4, eps=1e-24, per_gate=per_gate)
    params, carry, x = random_state(cell, 3)
    one, other = (cell.step(p, carry, x)[1] for p in (params, scaled(params, {gate: 7.0})))
    assert np.allclose(one, other, rtol=1e-11, atol=0) == per_gate


def test_slope_at_zero_is_one_over_the_square_root_of_eps():
    slope = jax.jacobian(lambda z: normalise(z, 1e-4))(jnp.zeros(5))
    np.testing.assert_allclose(slope, (np.eye(5) - 1 / 5) / 1e-2, rtol=1e-13)


def test_normalise_gives_mean_zero_and_variance_one(key):
    z = 3 + 10 * jax.random.normal(key, (2, 50))
    for axis in (None, -1):
        flat = normalise(z, 1e-20, axis)
        np.testing.assert_allclose(flat.mean(axis), 0, atol=1e-14)
        np.testing.assert_allclose(flat.var(axis), 1, rtol=1e-13)


@BOTH
def test_initial_gains_are_one_and_biases_zero(key, factory):
    params = factory(3, 4).init(key)
    for name, gate in params.items():
        for leaf in ("gain", "gain_h", "gain_x", "b", "b_h"):
            if leaf in gate:
                start = 1.0 if leaf.startswith("gain") or name == "f" else 0.0
                np.testing.assert_array_equal(gate[leaf], np.full(4, start))


@BOTH
def test_gradients_are_finite_at_the_initial_carry(factory):
    cell = factory(3, 4)
    params = cell.init(jax.random.key(0))
    loss = lambda *args: cell.step(*args)[1].sum()  # noqa: E731
    gradients = jax.grad(loss, (0, 1, 2))(params, cell.initial_carry(), jnp.zeros(3))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
