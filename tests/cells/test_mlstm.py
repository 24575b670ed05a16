"""The mLSTM against NumPy and its parallel form; its two forms against each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrix_states import HEADS, in_float32, sample, sigmoid, split
from oracle import assert_step_matches, random_state

from gradflow.cells.mlstm import MLSTMCarry, StabilisedMLSTMCarry, mlstm
from gradflow.unroll import unroll

GATES = pytest.mark.parametrize("forget_gate", ["sigmoid", "exp"])


def pair(forget_gate="sigmoid"):
    """The stabilised and the plain form."""
    options = {"num_heads": HEADS, "forget_gate": forget_gate}
    return mlstm(3, 6, **options), mlstm(3, 6, stabilised=False, **options)


def terms(params, x, forget_gate):
    a = split(params, x)
    log_f = a["f"] if forget_gate == "exp" else [np.log(sigmoid(f)) for f in a["f"]]
    return zip(a["q"], [k / np.sqrt(3) for k in a["k"]], a["v"], a["i"], log_f, strict=True)


def read(C, n, q, bound):
    """C q / max(|n q|, bound), an analytic function on either side of the bound."""
    dot = n @ q
    largest = np.where(np.abs(dot.real) > np.real(bound), dot * np.sign(dot.real), bound)
    return C @ q / largest


def plain_reference(forget_gate):
    def reference(params, carry, x):
        heads = []
        for j, (q, k, v, i, f) in enumerate(terms(params, x, forget_gate)):
            C = np.exp(f) * carry.C[j] + np.exp(i) * np.outer(v, k)
            n = np.exp(f) * carry.n[j] + np.exp(i) * k
            heads.append((C, n, read(C, n, q, 1.0)))
        C, n, h = (np.stack(parts) for parts in zip(*heads, strict=True))
        return MLSTMCarry(C, n, h.ravel())

    return reference


def stabilised_reference(forget_gate):
    def reference(params, carry, x):
        heads = []
        for j, (q, k, v, i, f) in enumerate(terms(params, x, forget_gate)):
            later = f + carry.m[j]
            m = np.where(later.real > i.real, later, i)
            C = np.exp(later - m) * carry.C[j] + np.exp(i - m) * np.outer(v, k)
            n = np.exp(later - m) * carry.n[j] + np.exp(i - m) * k
            heads.append((C, n, m, read(C, n, q, np.exp(-m))))
        C, n, m, h = (np.stack(parts) for parts in zip(*heads, strict=True))
        return StabilisedMLSTMCarry(C, n, m, h.ravel())

    return reference


@GATES
@pytest.mark.parametrize("scale", [0.1, 30.0])
def test_step_equals_the_reference_on_both_sides_of_the_bound(forget_gate, scale):
    for cell, reference in zip(
        pair(forget_gate), (stabilised_reference, plain_reference), strict=True
    ):
        carry = cell.initial_carry()
        carry = carry._replace(n=carry.n + scale)
        cell = cell._replace(initial_carry=lambda carry=carry: carry)
        for seed in (0, 1):
            assert_step_matches(cell, reference(forget_gate), 3, seed)


def parallel(params, inputs, forget_gate):
    """(Q Kᵀ ∘ D) V, each row divided by max(|its sum of weights|, 1), with D from log gates."""
    steps = [list(terms(params, x, forget_gate)) for x in inputs]
    outputs = []
    for j in range(HEADS):
        q, k, v, i, f = (np.stack(a) for a in zip(*[s[j] for s in steps], strict=True))
        logs = np.cumsum(f[:, 0])
        weights = np.tril(q @ k.T * np.exp(logs[:, None] - logs + i[:, 0]))
        outputs.append(weights @ v / np.maximum(np.abs(weights.sum(1, keepdims=True)), 1))
    return np.concatenate(outputs, axis=1)


@GATES
@pytest.mark.parametrize("is_stabilised", [True, False])
def test_recurrence_equals_the_parallel_form(forget_gate, is_stabilised):
    params, inputs, outputs = sample(pair(forget_gate)[not is_stabilised])
    expected = parallel(params, inputs, forget_gate)
    np.testing.assert_allclose(outputs, expected, rtol=1e-10, atol=1e-13)


@GATES
@pytest.mark.parametrize("shift", [-300.0, -2.0, 3.0, 300.0])
def test_both_forms_have_equal_outputs_and_gradients(forget_gate, shift):
    """Far below the bound, near it, and far above it."""
    stabilised, plain = pair(forget_gate)
    params, inputs, _ = sample(plain)
    params = params | {"i": params["i"] | {"b": params["i"]["b"] + shift}}

    def last(x, cell):
        return unroll(cell, params, x).outputs[-1]

    scale = np.exp(min(shift, 0))
    for function in (last, jax.jacobian(last)):
        one, other = (function(jnp.asarray(inputs), cell) for cell in (stabilised, plain))
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12 * scale)


def test_jacobians_by_c_differ_by_the_stabiliser(key):
    stabilised, plain = pair()
    params, carry, _ = random_state(plain, 3)
    m = jnp.array([[1.5], [-0.5]])
    C, n = carry.C / jnp.exp(m[..., None]), carry.n / jnp.exp(m)
    scaled = StabilisedMLSTMCarry(C, n, m, carry.h)
    inputs = jax.random.normal(key, (3, 3))
    one, other = (
        jax.jacobian(lambda s, cell=cell: unroll(cell, params, inputs, carry=s).outputs[-1])(s)
        for cell, s in ((stabilised, scaled), (plain, carry))
    )
    np.testing.assert_allclose(one.C, other.C * jnp.exp(m[..., None]), rtol=1e-9, atol=1e-13)
    assert np.abs(one.m).max() > 1e-3 and not np.any(one.h) and not np.any(other.h)


def test_the_plain_form_overflows_where_its_gate_does_and_the_stabilised_one_does_not():
    """The third input has a^i about 89.5 > log of the largest float32."""
    stabilised, plain = (in_float32_cell(cell) for cell in pair())
    params = in_float32(stabilised.init(jax.random.key(0)))
    params["i"]["W_x"] = jnp.zeros((HEADS, 3), jnp.float32).at[:, 0].set(1)
    for p in "qkv":  # the first input drives the input gate alone
        params[p]["W_x"] *= jnp.array([0, 1, 1], jnp.float32)
    inputs = in_float32(np.stack([[80.0, 86.0, 89.5, 0.0], np.ones(4), np.ones(4)], axis=1))
    outputs = [np.isfinite(unroll(cell, params, inputs).outputs) for cell in (plain, stabilised)]
    np.testing.assert_array_equal(outputs[0].all(axis=1), [True, True, False, False])
    assert outputs[1].all()


def in_float32_cell(cell):
    carry = in_float32(cell.initial_carry())
    return cell._replace(initial_carry=lambda: carry)


@pytest.mark.parametrize("shift", [-1e4, 1e4])
def test_gates_far_beyond_the_floats_give_finite_outputs_and_gradients(key, shift):
    cell, _ = pair()
    params = cell.init(key)
    params["i"]["b"] += shift
    params["q"]["W_x"] *= jnp.array([1.0, 1.0, 0.0])  # q = 0 for the last input

    def last(x):
        return unroll(cell, params, x).outputs[-1].sum()

    inputs = jnp.array([[1.0, 2, 0], [0.5, -1, 1], [0, 0, 1]])
    for leaf in jax.value_and_grad(last)(inputs):
        assert np.isfinite(leaf).all()
