"""The unroll against a Python loop: sequences, batches, padding, float types, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradflow import Cell, unroll
from gradflow.cells import LSTMCarry, gru, lstm, rnn
from gradflow.unroll import check_inputs, valid_steps

CELLS = {"rnn": rnn(3, 4), "lstm": lstm(3, 4), "gru": gru(3, 4)}
T, B = 6, 3


def inputs_of(*shape, seed=1):
    return jax.random.normal(jax.random.key(seed), shape)


def params_of(cell):
    """Initial parameters, moved so that no bias is zero."""
    return jax.tree.map(lambda leaf: leaf + 0.1, cell.init(jax.random.key(0)))


def loop(cell, params, inputs, carry=None, real=None):
    """s_0 ... s_T and h_1 ... h_T step by step, in Python."""
    carry = cell.initial_carry() if carry is None else carry
    carries, outputs = [carry], []
    for t, x in enumerate(inputs):
        if real is None or real[t]:
            carry = cell.step(params, carry, x)[0]
        carries.append(carry)
        outputs.append(cell.hidden(carry))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *carries), jnp.stack(outputs)


def assert_same(ours, theirs, **tolerance):
    """Asserts that two trajectories have the same structure and are equal to rounding."""
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(
            a, b, **({"rtol": 1e-12, "atol": 1e-14} | tolerance)
        ),
        tuple(ours),
        tuple(theirs),
    )


@pytest.mark.parametrize("name", CELLS)
def test_sequence_equals_a_python_loop(name):
    cell = CELLS[name]
    params, inputs = params_of(cell), inputs_of(T, 3)
    trajectory = unroll(cell, params, inputs)
    assert trajectory.outputs.shape == (T, 4)
    assert_same(trajectory, loop(cell, params, inputs))
    assert_same(jax.jit(unroll, static_argnums=0)(cell, params, inputs), trajectory)


@pytest.mark.parametrize("name", CELLS)
def test_batch_equals_a_loop_over_its_sequences(name):
    cell = CELLS[name]
    params, inputs = params_of(cell), inputs_of(T, B, 3)
    batch = unroll(cell, params, inputs)
    for b in range(B):
        one = jax.tree.map(lambda leaf, b=b: leaf[:, b], batch)
        assert_same(one, loop(cell, params, inputs[:, b]))
    by_vmap = jax.vmap(lambda x: unroll(cell, params, x), in_axes=1, out_axes=1)
    assert_same(batch, by_vmap(inputs))


@pytest.mark.parametrize("name", CELLS)
def test_gradient_of_a_batch_is_the_sum_over_its_sequences(name):
    cell = CELLS[name]
    params, inputs = params_of(cell), inputs_of(T, B, 3)

    def loss(params, inputs):
        return jnp.sum(jnp.sin(unroll(cell, params, inputs).outputs[-1]))

    def loss_of_loop(params, inputs):
        return jnp.sum(jnp.sin(loop(cell, params, inputs)[1][-1]))

    each = [jax.grad(loss_of_loop)(params, inputs[:, b]) for b in range(B)]
    total = jax.tree.map(lambda *leaves: sum(leaves), *each)
    assert_same([jax.grad(loss)(params, inputs)], [total], rtol=1e-11, atol=1e-13)


LENGTHS = [4, 0, T]


@pytest.mark.parametrize("name", CELLS)
def test_padded_steps_copy_the_carry_and_return_its_h(name):
    cell = CELLS[name]
    params, inputs = params_of(cell), inputs_of(T, B, 3)
    batch = unroll(cell, params, inputs, lengths=LENGTHS)
    mask = jnp.arange(T)[:, None] < jnp.array(LENGTHS)
    assert_same(batch, unroll(cell, params, inputs, mask=mask), rtol=0, atol=0)
    for b, length in enumerate(LENGTHS):
        one = jax.tree.map(lambda leaf, b=b: leaf[:, b], batch)
        assert_same(one, loop(cell, params, inputs[:, b], real=np.arange(T) < length))
        assert_same(one, unroll(cell, params, inputs[:, b], lengths=length))
        last = jax.tree.map(lambda leaf, n=length: leaf[n:], one.carries)
        jax.tree.map(lambda leaf: np.testing.assert_array_equal(leaf, leaf[:1] + 0 * leaf), last)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.booleans(), min_size=T, max_size=T))
def test_masked_steps_are_skipped(real):
    cell = CELLS["lstm"]
    params, inputs = params_of(cell), inputs_of(T, 3)
    trajectory = unroll(cell, params, inputs, mask=jnp.array(real))
    assert_same(trajectory, loop(cell, params, inputs, real=real))
    kept = loop(cell, params, inputs[np.array(real, bool)]) if any(real) else None
    end = jax.tree.map(lambda leaf: leaf[-1], kept[0]) if kept else cell.initial_carry()
    assert_same([jax.tree.map(lambda leaf: leaf[-1], trajectory.carries)], [end])


def test_step_jacobian_of_padding_is_exactly_the_identity():
    cell = CELLS["lstm"]
    params, inputs = params_of(cell), inputs_of(T, 3)
    carry = LSTMCarry(*inputs_of(2, 4, seed=3))

    def last(carry, real):
        carries = unroll(cell, params, inputs, carry=carry, mask=real).carries
        return jax.tree.map(lambda leaf: leaf[-1], carries)

    jacobian = jax.jacobian(last)(carry, jnp.zeros(T, bool))
    for later, earlier in [("h", "h"), ("h", "c"), ("c", "h"), ("c", "c")]:
        block = getattr(getattr(jacobian, later), earlier)
        np.testing.assert_array_equal(block, np.eye(4) * (later == earlier))
    padded = jax.jacobian(last)(carry, jnp.arange(T) < 2)
    short = jax.jacobian(
        lambda carry: jax.tree.map(
            lambda leaf: leaf[-1], unroll(cell, params, inputs[:2], carry=carry).carries
        )
    )(carry)
    assert_same([padded], [short], rtol=1e-12, atol=1e-15)


def test_lengths_may_be_traced():
    cell = CELLS["gru"]
    params, inputs = params_of(cell), inputs_of(T, B, 3)
    run = jax.jit(lambda lengths: unroll(cell, params, inputs, lengths=lengths))
    expected = unroll(cell, params, inputs, lengths=jnp.array(LENGTHS))
    assert_same(run(jnp.array(LENGTHS)), expected)


@pytest.mark.parametrize("name", CELLS)
def test_run_continues_from_the_given_carry(name):
    cell = CELLS[name]
    params, inputs = params_of(cell), inputs_of(T, B, 3)
    whole = unroll(cell, params, inputs)
    middle = jax.tree.map(lambda leaf: leaf[2], whole.carries)
    rest = unroll(cell, params, inputs[2:], carry=middle)
    np.testing.assert_allclose(rest.outputs, whole.outputs[2:], rtol=1e-12, atol=1e-14)
    first = jax.tree.map(lambda leaf: leaf[0], rest.carries)
    assert_same([first], [middle], rtol=0, atol=0)
    one = jax.tree.map(lambda leaf: leaf[1], middle)
    alone = unroll(cell, params, inputs[2:, 1], carry=one).outputs
    np.testing.assert_allclose(alone, whole.outputs[2:, 1], rtol=1e-12, atol=1e-14)


def test_zero_steps_return_the_initial_carry():
    cell = CELLS["lstm"]
    carry = LSTMCarry(jnp.ones(4), jnp.arange(4.0))
    carries, outputs = unroll(cell, params_of(cell), jnp.zeros((0, 3)), carry=carry)
    assert outputs.shape == (0, 4)
    assert_same([carries], [jax.tree.map(lambda leaf: leaf[None], carry)], rtol=0, atol=0)


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("name", CELLS)
def test_float32_stays_float32_while_x64_is_on(name, lengths):
    cell = CELLS[name]
    params, inputs = params_of(cell), inputs_of(T, B, 3)
    narrow, x = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (params, inputs))
    trajectory = unroll(cell, narrow, x, lengths=lengths)
    assert {leaf.dtype for leaf in jax.tree.leaves(trajectory)} == {jnp.dtype("float32")}
    assert_same(trajectory, unroll(cell, params, inputs, lengths=lengths), rtol=1e-4, atol=1e-6)


def test_run_has_the_wider_type_of_parameters_and_inputs():
    cell = CELLS["gru"]
    params, inputs = params_of(cell), inputs_of(T, 3)
    assert unroll(cell, params, inputs.astype(jnp.float32)).outputs.dtype == jnp.float64
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    assert unroll(cell, narrow, inputs).outputs.dtype == jnp.float64
    narrow_carry = jnp.zeros(4, jnp.float32)
    assert unroll(cell, params, inputs, carry=narrow_carry).outputs.dtype == jnp.float64


def step_of(change) -> Cell:
    """The RNN with `change` applied to the result of its step."""
    return CELLS["rnn"]._replace(step=lambda *before: change(*CELLS["rnn"].step(*before)))


def refused(kind, message):
    return pytest.raises(kind, match=message)


@pytest.mark.parametrize(
    "inputs, kind, message",
    [
        (jnp.arange(6).reshape(2, 3), TypeError, "Expected floating inputs, got int64. Convert"),
        (jnp.ones(3), ValueError, r"\(T, input\), or \(T, B, input\) .* got shape \(3,\)\."),
        (jnp.ones((2, 2, 2, 3)), ValueError, r"Expected .*, got shape \(2, 2, 2, 3\)\. Make"),
    ],
)
def test_bad_inputs_raise(inputs, kind, message):
    with refused(kind, message):
        check_inputs(inputs)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"lengths": [1, 2, 3], "mask": jnp.ones((T, B), bool)}, "got both. Remove one of them."),
        ({"lengths": [1, 2]}, r"Expected integer lengths of shape \(3,\), got int64 of .*2,"),
        ({"lengths": 2}, r"Expected integer lengths of shape \(3,\), got int64 of shape \(\)"),
        ({"lengths": [1, 2, T + 1]}, r"between 0 and T = 6, got \[1 2 7\]"),
        ({"lengths": [1, -2, 3]}, r"between 0 and T = 6, got \[ 1 -2  3\]"),
        (
            {"lengths": [3] * T},
            r"got int64 of shape \(6,\). If the inputs are batch-first, give jnp",
        ),
        (
            {"mask": jnp.ones((T, 2), bool)},
            r"Expected a boolean mask of shape \(6, 3\), .* of shape \(6, 2\)",
        ),
    ],
)
def test_bad_lengths_and_masks_raise(options, message):
    with refused(ValueError, message):
        valid_steps(inputs_of(T, B, 3), **({"lengths": None, "mask": None} | options))


def test_lengths_that_fit_batch_first_inputs_say_so():
    with refused(ValueError, r"T = 2, got \[5 4 3 2 1\]. If the inputs are batch-first, give jnp"):
        valid_steps(inputs_of(2, 5, 3), lengths=[5, 4, 3, 2, 1], mask=None)


@pytest.mark.parametrize(
    "cell, carry, kind, message",
    [
        (
            "rnn",
            jnp.zeros(5),
            ValueError,
            r"like that of cell.initial_carry\(\), of shapes \(4,\), got \(5,\)\. Give",
        ),
        (
            "rnn",
            jnp.zeros(4, int),
            TypeError,
            "floating arrays, got int64 at carry, which",
        ),
        (
            "lstm",
            LSTMCarry(jnp.zeros(4), jnp.zeros(4, bool)),
            TypeError,
            r"floating arrays, got bool at carry\.c, .*Make it floating",
        ),
    ],
)
def test_bad_carry_raises(cell, carry, kind, message):
    with refused(kind, message):
        unroll(CELLS[cell], params_of(CELLS[cell]), inputs_of(T, 3), carry=carry)


def test_inputs_of_the_wrong_size_raise():
    with refused(ValueError, r"shape \(T, input\) with 3 features, .* got shape \(6, 5\)\. Give"):
        unroll(CELLS["rnn"], params_of(CELLS["rnn"]), inputs_of(T, 5))


@pytest.mark.parametrize(
    "change",
    [
        lambda carry, h: (carry[None], h),
        lambda carry, h: ((carry,), h),
        lambda carry, h: (carry.astype(jnp.float32), h),
    ],
)
def test_step_that_changes_the_form_of_its_carry_raises(change):
    cell = step_of(change)
    for shape in ((T, 3), (T, B, 3)):
        with refused(ValueError, "Expected a step that returns a carry like its argument, "):
            unroll(cell, params_of(cell), inputs_of(*shape))


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"method": "plan"},
            "Unknown method 'plan'. Did you mean 'planned'.* auto, joined, parallel, planned, scan",
        ),
        ({"remat": "steps"}, "Unknown remat 'steps'. Did you mean 'step'.* none, sqrt, step"),
    ],
)
def test_unknown_method_or_remat_raises(options, message):
    with refused(ValueError, message):
        unroll(CELLS["rnn"], params_of(CELLS["rnn"]), inputs_of(T, 3), **options)
