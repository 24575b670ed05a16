"""The multiplicative LSTM, the residual LSTM and the NAS cell against their equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import assert_step_matches, random_state, sigmoid

from gradflow.cells.lstm import lstm
from gradflow.cells.lstm_relatives import multiplicative_lstm, nas, residual_lstm
from gradflow.unroll import unroll


def relu(a):
    return np.where(np.real(a) > 0, a, 0)


def multiplicative_reference(p, carry, x):
    h, c = carry
    m = (p["m"]["W_x"] @ x) * (p["m"]["W_h"] @ h)
    i, f, g, o = (p[q]["W_x"] @ x + p[q]["W_h"] @ m + p[q]["b"] for q in "ifgo")
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def residual_reference(p, carry, x):
    h, c = carry
    i, f, g, o = (p[q]["W_x"] @ x + p[q]["W_h"] @ h + p[q]["b"] for q in "ifgo")
    i, f = sigmoid(i + p["i"]["p"] * c), sigmoid(f + p["f"]["p"] * c)
    c = f * c + i * np.tanh(g)
    m = p["projection"]["W"] @ np.tanh(c)
    shortcut = p["shortcut"]["W_x"] @ x if len(x) != len(h) else x
    return sigmoid(o + p["o"]["p"] * c) * (m + shortcut), c


def nas_reference(p, carry, x):
    """The three layers of the tree, as TensorFlow's NASCell has them."""
    h, c = carry
    of_x = [p[f"a{q}"]["W_x"] @ x for q in range(1, 9)]
    of_h = [p[f"a{q}"]["W_h"] @ h + p[f"a{q}"]["b"] for q in range(1, 9)]
    squash = [sigmoid, relu, sigmoid, relu, np.tanh, sigmoid, np.tanh, sigmoid]
    first = [
        s(a * b if s is relu and i == 3 else a + b)
        for i, (s, a, b) in enumerate(zip(squash, of_x, of_h, strict=True))
    ]
    second = [
        np.tanh(first[0] * first[1]),
        np.tanh(first[2] + first[3]),
        np.tanh(first[4] * first[5]),
        sigmoid(first[6] + first[7]),
    ]
    c = np.tanh(second[0] + c) * second[1]
    return np.tanh(c * np.tanh(second[2] + second[3])), c


CELLS = [
    (multiplicative_lstm, multiplicative_reference),
    (residual_lstm, residual_reference),
    (nas, nas_reference),
]


@pytest.mark.parametrize("input_size", [3, 4, 0])
@pytest.mark.parametrize("factory, reference", CELLS)
def test_step_equals_the_reference(factory, reference, input_size):
    assert_step_matches(factory(input_size, 4), reference, input_size)


def test_a_multiplicative_lstm_is_an_lstm_whose_matrices_depend_on_the_input():
    """Of one input, W_h^q diag(W_x^m x) W_h^m: one step of the two is equal for any carry."""
    cell = multiplicative_lstm(3, 4)
    params, carry, x = random_state(cell, 3)
    m = params["m"]
    factor = jnp.diag(m["W_x"] @ x) @ m["W_h"]
    plain = {q: p | {"W_h": p["W_h"] @ factor} for q, p in params.items() if q != "m"}
    for found, same in zip(
        jax.tree.leaves((cell.step(params, carry, x), cell.gates(params, carry, x))),
        jax.tree.leaves((lstm(3, 4).step(plain, carry, x), lstm(3, 4).gates(plain, carry, x))),
        strict=True,
    ):
        np.testing.assert_allclose(found, same, rtol=1e-12)


def test_a_zero_input_cuts_the_path_through_h_of_a_multiplicative_lstm():
    cell = multiplicative_lstm(3, 4)
    params, carry, x = random_state(cell, 3)
    jacobian = jax.jacobian(lambda carry: cell.step(params, carry, 0 * x)[0])(carry)
    np.testing.assert_array_equal(jacobian.c.h, np.zeros((4, 4)))
    assert np.abs(jacobian.c.c).max() > 0.1


def test_the_shortcut_of_a_residual_lstm_is_not_in_the_path_of_the_cell_state():
    """∂c_t/∂c_{t-1} is that of the LSTM, and h minus the LSTM's is o ∘ x."""
    cell, plain = residual_lstm(4, 4), lstm(4, 4, peephole=True)
    params, carry, x = random_state(cell, 4)
    params |= {"projection": {"W": jnp.eye(4)}}
    ours, theirs = (
        jax.jacobian(lambda carry, c=c: c.step(params, carry, x)[0].c)(carry) for c in (cell, plain)
    )
    np.testing.assert_allclose(ours.c, theirs.c, rtol=1e-14)
    difference = cell.step(params, carry, x)[1] - plain.step(params, carry, x)[1]
    np.testing.assert_allclose(difference, cell.gates(params, carry, x)["o"] * x, rtol=1e-12)


def test_the_shortcut_has_a_matrix_where_the_sizes_differ(key):
    assert "shortcut" not in residual_lstm(4, 4).init(key)
    assert residual_lstm(3, 4).init(key)["shortcut"]["W_x"].shape == (4, 3)


def test_the_states_of_a_nas_cell_are_below_one_for_any_input(key):
    cell = nas(2, 4)
    params = random_state(cell, 2)[0]
    run = unroll(cell, params, 30 * jax.random.normal(key, (30, 2)))
    assert 0.5 < jnp.abs(run.carries.c).max() < 1 and jnp.abs(run.outputs).max() < 1
