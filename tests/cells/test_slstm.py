"""The sLSTM against NumPy; its two forms against each other, and where the plain one overflows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrix_states import HEADS, in_float32, sigmoid
from oracle import assert_step_matches, random_state

from gradflow.cells.slstm import SLSTMCarry, StabilisedSLSTMCarry, slstm
from gradflow.unroll import unroll

GATES = pytest.mark.parametrize("forget_gate", ["sigmoid", "exp"])


def pair(forget_gate="sigmoid"):
    """The stabilised and the plain form."""
    options = {"num_heads": HEADS, "forget_gate": forget_gate}
    return slstm(3, 4, **options), slstm(3, 4, stabilised=False, **options)


def terms(params, h, x, forget_gate):
    """The logarithms of i and f, and g and o, with W_h as one block diagonal matrix."""
    a = {}
    for gate, p in params.items():
        W_h = np.zeros((4, 4))
        W_h[:2, :2], W_h[2:, 2:] = p["W_h"]
        a[gate] = p["W_x"] @ x + W_h @ h + p["b"]
    log_f = a["f"] if forget_gate == "exp" else np.log(sigmoid(a["f"]))
    return a["i"], log_f, np.tanh(a["g"]), sigmoid(a["o"])


def plain_reference(forget_gate):
    def reference(params, carry, x):
        i, f, g, o = terms(params, carry.h, x, forget_gate)
        c = np.exp(f) * carry.c + np.exp(i) * g
        n = np.exp(f) * carry.n + np.exp(i)
        return SLSTMCarry(o * c / n, c, n)

    return reference


def stabilised_reference(forget_gate):
    def reference(params, carry, x):
        i, f, g, o = terms(params, carry.h, x, forget_gate)
        m = np.where((f + carry.m).real > i.real, f + carry.m, i)
        c = np.exp(f + carry.m - m) * carry.c + np.exp(i - m) * g
        n = np.exp(f + carry.m - m) * carry.n + np.exp(i - m)
        return StabilisedSLSTMCarry(o * c / n, c, n, m)

    return reference


@GATES
def test_step_equals_the_reference(forget_gate):
    stabilised, plain = pair(forget_gate)
    positive = jnp.ones(4)  # n is a sum of exponentials
    for cell, reference in ((stabilised, stabilised_reference), (plain, plain_reference)):
        carry = cell.initial_carry()._replace(n=positive)
        cell = cell._replace(initial_carry=lambda carry=carry: carry)
        assert_step_matches(cell, reference(forget_gate), 3)


def test_both_arguments_of_the_maximum_are_tested():
    """In the reference test, of one gate or the other, the maximum is each argument somewhere."""
    cell, _ = pair()
    taken = set()
    for seed in (0, 1):
        params, carry, x = random_state(cell, 3, seed)
        i, f, _, _ = terms(jax.tree.map(np.asarray, params), np.asarray(carry.h), x, "sigmoid")
        taken |= set((f + carry.m > i).tolist())
    assert taken == {True, False}


def run(cell, params, inputs, carry=None):
    return unroll(cell, params, inputs, carry=carry).outputs


@GATES
def test_both_forms_have_equal_outputs_and_gradients(key, forget_gate):
    stabilised, plain = pair(forget_gate)
    params, _, _ = random_state(plain, 3)
    inputs = 3 * jax.random.normal(key, (7, 3))
    results = [
        (run(cell, params, inputs), jax.jacobian(lambda x, cell=cell: run(cell, params, x))(inputs))
        for cell in (stabilised, plain)
    ]
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def test_jacobians_by_h_are_equal_and_by_c_differ_by_the_stabiliser(key):
    stabilised, plain = pair()
    params, carry, _ = random_state(plain, 3)
    carry = carry._replace(n=carry.n**2 + 0.5)
    m = jnp.array([0.5, -1.0, 2.0, 0.0])
    scaled = StabilisedSLSTMCarry(carry.h, carry.c / jnp.exp(m), carry.n / jnp.exp(m), m)
    inputs = jax.random.normal(key, (4, 3))
    one = jax.jacobian(lambda s: run(stabilised, params, inputs, s)[-1])(scaled)
    other = jax.jacobian(lambda s: run(plain, params, inputs, s)[-1])(carry)
    np.testing.assert_allclose(one.h, other.h, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(one.c, other.c * jnp.exp(m), rtol=1e-10, atol=1e-14)
    assert np.abs(one.m).max() > 1e-3  # m is a state: c and n are read in its units


def test_the_plain_form_overflows_at_the_step_at_which_its_normaliser_does(key):
    stabilised, plain = pair("exp")
    params = plain.init(key)
    params["f"]["b"] += 20.0  # f = exp(21): n grows by this factor at each step, i stays near 1
    params["g"]["b"] += 1.0
    inputs = jnp.zeros((40, 3))
    for gate in "if":
        params[gate]["W_h"] *= 0
    limit = int(np.log(np.finfo(np.float64).max) / 21) + 1  # n_t is about exp(21 (t - 1))
    finite = np.isfinite(run(plain, params, inputs)).all(axis=1)
    np.testing.assert_array_equal(finite, np.arange(1, 41) <= limit)
    outputs = run(stabilised, params, inputs)
    assert np.isfinite(outputs).all()
    np.testing.assert_allclose(outputs[:limit], run(plain, params, inputs)[:limit], rtol=1e-9)
    gradient = jax.grad(lambda p: run(stabilised, p, inputs)[-1].sum())(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("shift", [-1e4, -300.0, 300.0, 1e4])
def test_a_constant_in_all_input_gates_changes_nothing(key, shift):
    """h is a weighted mean; in float32, exp(shift) is infinite or 0."""
    cell, _ = pair()
    params, inputs = cell.init(key), jax.random.normal(key, (7, 3))
    shifted = params | {"i": params["i"] | {"b": params["i"]["b"] + shift}}
    expected, found = run(cell, params, inputs), run(cell, shifted, inputs)
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    rounded = run(cell, in_float32(shifted), in_float32(inputs), in_float32(cell.initial_carry()))
    np.testing.assert_allclose(rounded, expected, atol=1e-2 if abs(shift) > 1e3 else 1e-4)


def test_the_normaliser_of_the_stabilised_form_is_at_least_1(key):
    cell, _ = pair()
    params, inputs = random_state(cell, 3)[0], 5 * jax.random.normal(key, (30, 3))
    carries = unroll(cell, params, inputs).carries
    assert np.min(carries.n[1:]) >= 1 and np.max(np.abs(carries.c / carries.n)[1:]) <= 1


def test_gates_are_those_of_the_step():
    cell, _ = pair()
    params, carry, x = random_state(cell, 3)
    gates, (new, h) = cell.gates(params, carry, x), cell.step(params, carry, x)
    np.testing.assert_allclose(gates["f"] * carry.c + gates["i"] * gates["g"], new.c)
    np.testing.assert_allclose(gates["o"] * new.c / new.n, h)
    assert np.maximum(gates["i"], gates["f"]).tolist() == [1.0] * 4


def test_initial_parameters(key):
    params = slstm(2, 6, num_heads=2, forget_bias=-2.0).init(key)
    blocks = [np.asarray(block) for gate in params.values() for block in gate["W_h"]]
    for block in blocks:
        np.testing.assert_allclose(block @ block.T, np.eye(3), atol=1e-12)
    assert len({block.tobytes() for block in blocks}) == 8
    assert {name: p["b"].tolist() for name, p in params.items()} == {
        name: [-2.0 if name == "f" else 0.0] * 6 for name in "ifgo"
    }
    assert params["i"]["W_x"].shape == (6, 2)
