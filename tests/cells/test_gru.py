"""The two GRUs against Flax and NumPy, and their symmetry under permutation of the units."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import assert_step_matches, random_state, sigmoid

from gradflow.cells import gru, gru_reset_before


def affine(p, h, x):
    return p["W_x"] @ x + p["W_h"] @ h + p["b"]


def numpy_gates(params, h, x, *, reset_before):
    r, z = (sigmoid(affine(params[gate], h, x)) for gate in "rz")
    p = params["n"]
    if reset_before:
        return {"r": r, "z": z, "n": np.tanh(affine(p, r * h, x))}
    return {"r": r, "z": z, "n": np.tanh(p["W_x"] @ x + p["b"] + r * (p["W_h"] @ h + p["b_h"]))}


def reference(*, reset_before):
    def step(params, h, x):
        gate = numpy_gates(params, h, x, reset_before=reset_before)
        return (1 - gate["z"]) * gate["n"] + gate["z"] * h

    return step


FORMS = [(gru, False), (gru_reset_before, True)]


@pytest.mark.parametrize("factory, reset_before", FORMS)
def test_step_and_jacobians_equal_numpy(factory, reset_before):
    assert_step_matches(factory(3, 4), reference(reset_before=reset_before), 3)
    assert_step_matches(factory(0, 4), reference(reset_before=reset_before), 0)


def test_step_and_jacobians_equal_flax():
    cell = gru(3, 5)
    params, h, x = random_state(cell, 3)
    flax_params = {"hn": {"kernel": params["n"]["W_h"].T, "bias": params["n"]["b_h"]}}
    for gate, p in params.items():
        flax_params[f"i{gate}"] = {"kernel": p["W_x"].T, "bias": p["b"]}
    for gate in "rz":
        flax_params[f"h{gate}"] = {"kernel": params[gate]["W_h"].T}

    def flax_step(h, x):
        return nn.GRUCell(5).apply({"params": flax_params}, h, x)

    def step(h, x):
        return cell.step(params, h, x)

    jax.tree.map(
        lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-14),
        (step(h, x), jax.jacobian(step, (0, 1))(h, x)),
        (flax_step(h, x), jax.jacobian(flax_step, (0, 1))(h, x)),
    )


@pytest.mark.parametrize("factory, reset_before", FORMS)
def test_gates_are_those_used_in_the_step(factory, reset_before):
    cell = factory(3, 4)
    params, h, x = random_state(cell, 3)
    gates = cell.gates(params, h, x)
    numpy_params = jax.tree.map(np.asarray, params)
    expected = numpy_gates(numpy_params, np.asarray(h), np.asarray(x), reset_before=reset_before)
    assert set(gates) == set("rzn")
    for name in gates:
        np.testing.assert_allclose(gates[name], expected[name], rtol=1e-12)


@pytest.mark.parametrize("factory", [gru, gru_reset_before])
def test_update_gate_of_one_copies_the_state(factory):
    # z = 1 keeps the old state: in these cells, and not in Haiku's.
    cell = factory(2, 3)
    params = jax.tree.map(jnp.zeros_like, cell.init(jax.random.key(0)))
    params["z"]["b"] += 1e3
    step = lambda h: cell.step(params, h, jnp.ones(2))[0]  # noqa: E731
    h = jnp.array([0.5, -2.0, 3.0])
    np.testing.assert_array_equal(step(h), h)
    np.testing.assert_array_equal(jax.jacobian(step)(h), np.eye(3))


def test_reset_before_and_after_the_product_differ():
    # They agree only if the reset gate is one, or W_h is diagonal and b_h zero.
    after, before = gru(3, 4), gru_reset_before(3, 4)
    params, h, x = random_state(before, 3)
    params["n"]["b_h"] = jnp.zeros(4)
    assert abs(after.step(params, h, x)[0] - before.step(params, h, x)[0]).max() > 1e-2
    params["n"]["W_h"] = jnp.diag(jnp.arange(4.0))
    np.testing.assert_allclose(after.step(params, h, x)[0], before.step(params, h, x)[0], 1e-13)


@pytest.mark.parametrize("factory", [gru, gru_reset_before])
def test_the_update_bias_keeps_the_state_and_leaves_all_other_parameters(key, factory):
    plain, params = factory(3, 4).init(key), factory(3, 4, update_bias=2.0).init(key)
    np.testing.assert_array_equal(params["z"].pop("b"), np.full(4, 2.0))
    np.testing.assert_array_equal(plain["z"].pop("b"), np.zeros(4))
    jax.tree.map(np.testing.assert_array_equal, params, plain)
    for bias, kept in ((2.0, sigmoid(2.0)), (-2.0, sigmoid(-2.0))):
        cell = factory(0, 4, update_bias=bias, recurrent_init="normal(std=1e-30)")
        h = jnp.ones(4)
        np.testing.assert_allclose(cell.step(cell.init(key), h, jnp.zeros(0))[0], kept * h)


@pytest.mark.parametrize("factory", [gru, gru_reset_before])
def test_chrono_spreads_the_memories_of_the_update_gate(key, factory):
    b = factory(1, 400, update_bias="chrono(max_lag=30)").init(key)["z"]["b"]
    memories = np.exp(b) + 1
    assert memories.min() >= 2 and memories.max() <= 30
    assert memories.mean() == pytest.approx(16, rel=0.1)
