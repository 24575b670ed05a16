"""The LSTM against Flax and NumPy, its initial parameters, and its permutation symmetry."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import assert_step_matches, random_state, sigmoid

from gradflow.cells import LSTMCarry, lstm


def numpy_gates(params, h, x):
    a = {q: p["W_x"] @ x + p["W_h"] @ h + p["b"] for q, p in params.items()}
    return {q: np.tanh(a[q]) if q == "g" else sigmoid(a[q]) for q in "ifgo"}


def reference(params, carry, x):
    gate = numpy_gates(params, carry[0], x)
    c = gate["f"] * carry[1] + gate["i"] * gate["g"]
    return [gate["o"] * np.tanh(c), c]


@pytest.mark.parametrize("input_size", [3, 0])
def test_step_and_jacobians_equal_numpy(input_size):
    assert_step_matches(lstm(input_size, 4), reference, input_size)


def test_step_and_jacobians_equal_flax():
    cell = lstm(3, 5)
    params, carry, x = random_state(cell, 3)
    flax_params = {}
    for gate, p in params.items():
        flax_params[f"i{gate}"] = {"kernel": p["W_x"].T}
        flax_params[f"h{gate}"] = {"kernel": p["W_h"].T, "bias": p["b"]}

    def flax_step(h, c, x):  # Flax's carry is (c, h)
        (c, h), y = nn.LSTMCell(5).apply({"params": flax_params}, (c, h), x)
        return h, c, y

    def step(h, c, x):
        new, y = cell.step(params, LSTMCarry(h=h, c=c), x)
        return new.h, new.c, y

    arguments = (carry.h, carry.c, x)
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-14),
        (step(*arguments), jax.jacobian(step, (0, 1, 2))(*arguments)),
        (flax_step(*arguments), jax.jacobian(flax_step, (0, 1, 2))(*arguments)),
    )


def test_gates_are_those_used_in_the_step():
    cell = lstm(3, 4)
    params, carry, x = random_state(cell, 3)
    gates = cell.gates(params, carry, x)
    expected = numpy_gates(jax.tree.map(np.asarray, params), np.asarray(carry.h), np.asarray(x))
    assert set(gates) == set("ifgo")
    for name in gates:
        np.testing.assert_allclose(gates[name], expected[name], rtol=1e-12)


def test_open_forget_gate_gives_the_identity_as_jacobian_of_the_cell_state():
    # The constant error carousel: f = 1, i = 0 and no recurrent weights give ∂c_t/∂c_{t-1} = I.
    cell = lstm(2, 3)
    params = jax.tree.map(jnp.zeros_like, cell.init(jax.random.key(0)))
    params["f"]["b"] += 1e3
    params["i"]["b"] -= 1e3
    step = lambda c: cell.step(params, LSTMCarry(jnp.ones(3), c), jnp.ones(2))[0].c  # noqa: E731
    c = jnp.array([0.5, -2.0, 3.0])
    np.testing.assert_array_equal(step(c), c)
    np.testing.assert_array_equal(jax.jacobian(step)(c), np.eye(3))


def test_one_gate_can_be_initialised_separately(key):
    laws = {"i": "normal(std=0.5)", "f": "identity(gain=0.9)", "g": "orthogonal", "o": "glorot"}
    params = lstm(3, 4, recurrent_init=laws).init(key)
    np.testing.assert_array_equal(params["f"]["W_h"], 0.9 * np.eye(4))
    np.testing.assert_allclose(params["g"]["W_h"] @ params["g"]["W_h"].T, np.eye(4), atol=1e-12)
    assert abs(params["i"]["W_h"] @ params["i"]["W_h"].T - np.eye(4)).max() > 0.1
    with pytest.raises(ValueError, match=r"each of the gates \['f', 'g', 'i', 'o'\], got"):
        lstm(3, 4, recurrent_init={"f": "identity"})
