"""The LSTM's options: peepholes, coupled gates, and no forget gate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import assert_step_matches, random_state

from gradflow.cells.lstm import LSTMCarry, lstm
from gradflow.unroll import unroll

OPTIONS = [
    {"peephole": True},
    {"peephole": "if"},
    {"peephole": "o"},
    {"coupled": True},
    {"coupled": True, "peephole": True},
    {"forget_gate": False},
    {"forget_gate": False, "peephole": True},
]


def reference(params, carry, x):
    """Graves 2013, eq. 7 to 11; terms without parameters are left out."""
    h, c = carry

    def sigmoid(q, c):
        w = params[q]
        a = w["W_x"] @ x + w["W_h"] @ h + w["b"] + w.get("p", np.zeros(3)) * c
        return 1 / (1 + np.exp(-a))

    forget = sigmoid("f", c) if "f" in params else 1.0
    take = sigmoid("i", c) if "i" in params else 1 - forget
    w = params["g"]
    c = forget * c + take * np.tanh(w["W_x"] @ x + w["W_h"] @ h + w["b"])
    return LSTMCarry(sigmoid("o", c) * np.tanh(c), c)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("input_size", [2, 0])
def test_step_equals_the_reference(options, input_size):
    assert_step_matches(lstm(input_size, 3, **options), reference, input_size)


@pytest.mark.parametrize(
    "options, names, peepholes",
    [
        ({}, "fgio", ""),
        ({"peephole": True}, "fgio", "fio"),
        ({"peephole": "fo"}, "fgio", "fo"),
        ({"peephole": False}, "fgio", ""),
        ({"coupled": True, "peephole": True}, "fgo", "fo"),
        ({"forget_gate": False, "peephole": True}, "gio", "io"),
    ],
)
def test_parameters_exist_only_for_the_gates_in_use(key, options, names, peepholes):
    params = lstm(2, 3, **options).init(key)
    assert "".join(sorted(params)) == names
    assert "".join(q for q in sorted(params) if "p" in params[q]) == peepholes


def test_initial_input_bias_is_the_given_value(key):
    start = lambda **options: lstm(2, 3, **options).init(key)["i"]["b"]  # noqa: E731
    np.testing.assert_array_equal(start(), np.zeros(3))
    np.testing.assert_array_equal(start(forget_gate=False, input_bias=-3.0), np.full(3, -3.0))
    of_chrono = start(forget_bias="chrono(max_lag=9)", input_bias=1.0)
    np.testing.assert_array_equal(of_chrono, np.ones(3))
    with pytest.raises(ValueError, match="Expected no input_bias with coupled=True, .* got -1.0"):
        lstm(2, 3, coupled=True, input_bias=-1.0)


def test_cell_jacobian_of_the_lstm_of_1997_is_the_identity(key):
    cell = lstm(2, 4, forget_gate=False)
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: 0 * leaf if path[-1].key == "W_h" else leaf, cell.init(key)
    )
    inputs = 3 * jax.random.normal(key, (25, 2))

    def last_cell(c):
        carry = LSTMCarry(jnp.zeros(4), c)
        return unroll(cell, params, inputs, carry=carry).carries.c[-1]

    np.testing.assert_array_equal(jax.jacobian(last_cell)(jnp.ones(4)), np.eye(4))


def test_coupled_gates_sum_to_one_and_bound_the_cell_state(key):
    cell = lstm(2, 4, coupled=True)
    params, carry, x = random_state(cell, 2)
    gates = cell.gates(params, carry, x)
    np.testing.assert_allclose(gates["i"] + gates["f"], 1, rtol=1e-15)
    run = unroll(cell, params, 100 * jax.random.normal(key, (30, 2)))
    assert 0.9 < jnp.abs(run.carries.c).max() <= 1


def test_forget_gate_reads_one_if_there_is_none():
    cell = lstm(2, 4, forget_gate=False)
    params, carry, x = random_state(cell, 2)
    np.testing.assert_array_equal(cell.gates(params, carry, x)["f"], np.ones(4))


@pytest.mark.parametrize("gate, later", [("i", False), ("f", False), ("o", True)])
def test_peephole_of_i_and_f_reads_the_previous_cell_state_and_of_o_the_new_one(gate, later):
    cell = lstm(2, 4, peephole=gate)
    params, carry, x = random_state(cell, 2)
    before = cell.gates(params, carry, x)[gate]
    after, _ = cell.step(params, carry, x)
    stronger = params | {gate: params[gate] | {"p": params[gate]["p"] + 1.0}}
    logit = lambda s: jnp.log(s / (1 - s))  # noqa: E731
    seen = logit(cell.gates(stronger, carry, x)[gate]) - logit(before)
    np.testing.assert_allclose(seen, after.c if later else carry.c, rtol=1e-11)


def test_peepholes_do_not_change_the_initial_matrices(key):
    plain = lstm(2, 100, recurrent_init="normal").init(key)
    peeping = lstm(2, 100, recurrent_init="normal", peephole=True).init(key)
    p = np.concatenate([np.asarray(peeping[q].pop("p")) for q in "ifo"])
    jax.tree.map(np.testing.assert_array_equal, peeping, plain)
    # 300 numbers of N(0, 0.1²): four standard errors of their mean, and of their deviation.
    assert abs(p.mean()) < 0.025 and 0.083 < p.std() < 0.117
