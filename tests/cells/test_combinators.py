"""Cells made from other cells, each against an equal construction."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from oracle import random_state

from gradflow import flow
from gradflow.cells.combinators import (
    dropout_of,
    feedback,
    feedback_of,
    masked_of,
    residual,
    residual_of,
    stack_of,
    zoneout_of,
)
from gradflow.cells.dropout import resample_masks, with_dropout, zoneout
from gradflow.cells.gru import gru
from gradflow.cells.lstm import LSTMCarry, lstm
from gradflow.cells.masks import recurrent_mask, with_recurrent_mask
from gradflow.cells.rnn import rnn
from gradflow.cells.stack import stack
from gradflow.unroll import unroll

FACTORIES = [stack_of, residual_of, feedback_of, dropout_of, zoneout_of, masked_of]
CELLS = [lstm, gru, rnn]


def jacobian(cell, params, carry, x):
    flat, unravel = ravel_pytree(carry)
    return jax.jacobian(lambda s: ravel_pytree(cell.step(params, unravel(s), x)[0])[0])(flat)


def assert_same_step(ours, theirs, params, carry, x, *, theirs_params=None, rtol=1e-13):
    theirs_params = params if theirs_params is None else theirs_params
    for one, other in zip(
        jax.tree.leaves(ours.step(params, carry, x)),
        jax.tree.leaves(theirs.step(theirs_params, carry, x)),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=1e-15)
    np.testing.assert_allclose(
        jacobian(ours, params, carry, x),
        jacobian(theirs, theirs_params, carry, x),
        rtol=rtol,
        atol=1e-14,
    )


@pytest.mark.parametrize("factory", FACTORIES)
def test_combined_cell_forwards_the_initialiser(factory, key):
    params = factory(2, 3, recurrent_init="identity(gain=0.5)").init(key)
    found = [
        leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if path[-1] == jax.tree_util.DictKey("W_h")
    ]
    assert found
    for W_h in found:
        np.testing.assert_array_equal(W_h, 0.5 * np.eye(3))


# --- stack ---


@pytest.mark.parametrize("skip", [None, "input", "residual"])
def test_stack_equals_running_each_layer_on_the_outputs_of_the_one_below(key, skip):
    above = 4 + 3 if skip == "input" else 4
    layers = [lstm(3, 4), gru(above, 4), rnn(above, 4)]
    cell = stack(layers, skip=skip)
    params, carry, _ = random_state(cell, 3)
    inputs = jax.random.normal(key, (7, 3))
    both = unroll(cell, params, inputs, carry=carry)
    x, below = inputs, []
    for layer, p, c, carries in zip(layers, params, carry, both.carries, strict=True):
        alone = unroll(layer, p, x, carry=c)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), carries, alone[0])
        below.append(alone.outputs)
        if skip == "input":
            x = jnp.concatenate([alone.outputs, inputs], axis=-1)
        elif skip == "residual":
            x = alone.outputs + (x if len(below) > 1 else 0)
        else:
            x = alone.outputs
    np.testing.assert_allclose(both.outputs, below[-1], rtol=1e-12)


@pytest.mark.parametrize("skip", [None, "input", "residual"])
def test_the_jacobian_of_a_stack_is_block_lower_triangular(skip):
    above = 4 + 3 if skip == "input" else 4
    layers = [lstm(3, 4), gru(above, 4)]
    cell = stack(layers, skip=skip)
    params, carry, x = random_state(cell, 3)
    J = np.asarray(jacobian(cell, params, carry, x))
    assert (J[:8, 8:] == 0).all() and abs(J[8:, :8]).max() > 1e-3
    np.testing.assert_allclose(J[:8, :8], jacobian(layers[0], params[0], carry[0], x), rtol=1e-12)
    h = layers[0].step(params[0], carry[0], x)[1]
    x_1 = jnp.concatenate([h, x]) if skip == "input" else h
    np.testing.assert_allclose(
        J[8:, 8:], jacobian(layers[1], params[1], carry[1], x_1), rtol=1e-12, atol=1e-15
    )


def test_stack_of_one_layer_equals_the_layer():
    params, carry, x = random_state(lstm(3, 4), 3)
    new, h = stack([lstm(3, 4)]).step((params,), (carry,), x)
    jax.tree.map(np.testing.assert_array_equal, (new[0], h), lstm(3, 4).step(params, carry, x))


def test_layers_of_a_stack_have_their_own_sizes_gates_and_blocks(key):
    cell = stack([lstm(3, 2), rnn(2, 4), gru(4, 3)])
    params, carry, x = random_state(cell, 3)
    gates = cell.gates(params, carry, x)
    assert set(gates) == {"0.i", "0.f", "0.g", "0.o", "2.r", "2.z", "2.n"}
    np.testing.assert_array_equal(gates["0.f"], lstm(3, 2).gates(params[0], carry[0], x)["f"])
    h = unroll(stack([lstm(3, 2), rnn(2, 4)]), params[:2], x[None], carry=carry[:2]).outputs[0]
    np.testing.assert_allclose(gates["2.z"], gru(4, 3).gates(params[2], carry[2], h)["z"])
    assert stack([rnn(3, 4), rnn(4, 4)]).gates is None
    inputs = jax.random.normal(key, (5, 3))
    through = flow.log_norms(cell, params, inputs, source="0.c", target="h", norm="frobenius")
    c_to_top = jax.jacobian(
        lambda c: unroll(
            cell, params, inputs, carry=(LSTMCarry(jnp.zeros(2), c), jnp.zeros(4), jnp.zeros(3))
        ).outputs[-1]
    )(jnp.zeros(2))
    np.testing.assert_allclose(through[5], np.log(np.linalg.norm(c_to_top)), rtol=1e-10)


def test_layers_are_parsed_with_their_options(key):
    cell = stack_of(3, 4, cells="lstm(forget_bias=2.0), rnn(activation='relu'), gru", skip="input")
    lower, middle, upper = cell.init(key)
    assert float(lower["f"]["b"][0]) == 2.0
    assert (middle["W_x"].shape, upper["r"]["W_x"].shape) == ((4, 7), (4, 7))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: stack([]), "Expected a stack of at least one cell, got none"),
        (lambda: stack_of(3, 4, cells=""), "Expected a stack of at least one cell, got none"),
        (lambda: stack_of(3, 4, cells="lstm,lsmt"), "Unknown cell 'lsmt'. Did you mean 'lstm'"),
        (
            lambda: stack_of(3, 4, skip="inptu"),
            "Unknown kind of skip connection 'inptu'. Did you mean 'input'",
        ),
        (
            lambda: stack([lstm(3, 4), gru(5, 4)]),
            r"Expected layer 1 of the stack \(counted from 0\) to take an input of size 4, .*"
            r"\(4, 5\).*. Make this layer with input_size=4",
        ),
        (
            lambda: stack([lstm(3, 4), gru(4, 5)], skip="residual"),
            r"Expected layers of equal size with skip='residual', got hidden sizes \[4, 5\]",
        ),
    ],
)
def test_incompatible_layers_raise(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_input_of_the_wrong_size_for_the_first_layer_raises(key):
    cell = stack([rnn(3, 4), rnn(4, 4)])
    with pytest.raises(ValueError, match=r"layer 0 of the stack .* an input of size 2, .*size=2"):
        cell.step(cell.init(key), cell.initial_carry(), jnp.ones(2))


# --- residual, feedback ---


@pytest.mark.parametrize("factory", CELLS)
@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_residual_cell_adds_the_identity_to_the_jacobian(factory, scale):
    inner, cell = factory(3, 4), residual(factory(3, 4), scale=scale)
    params, carry, x = random_state(cell, 3)
    J_F = jacobian(inner, params, carry, x)
    np.testing.assert_allclose(
        jacobian(cell, params, carry, x), np.eye(len(J_F)) + scale * J_F, rtol=1e-13, atol=1e-15
    )
    added, s = inner.step(params, carry, x)[0], cell.step(params, carry, x)[0]
    jax.tree.map(
        lambda s, old, f: np.testing.assert_allclose(s, old + scale * f, rtol=1e-14),
        s,
        carry,
        added,
    )


def test_residual_scale_that_is_not_a_number_raises():
    with pytest.raises(ValueError, match="Expected scale to be finite, got inf"):
        residual(rnn(3, 4), scale=float("inf"))


def test_feedback_of_a_vanilla_rnn_adds_to_its_recurrent_matrix():
    params, h, x = random_state(feedback_of(3, 4, cell="rnn"), 3)
    W_x, W_back = params["W_x"][:, :3], params["W_x"][:, 3:]
    merged = params | {"W_x": W_x, "W_h": params["W_h"] + W_back}
    assert_same_step(feedback(rnn(7, 4)), rnn(3, 4), params, h, x, theirs_params=merged, rtol=1e-12)


def test_feedback_acts_on_the_gates_and_on_the_next_step():
    cell = feedback(lstm(4, 4))
    params, carry, _ = random_state(cell, 0)
    gates = cell.gates(params, carry, jnp.zeros(0))
    expected = lstm(4, 4).gates(params, carry, carry.h)
    jax.tree.map(np.testing.assert_array_equal, gates, expected)
    run = unroll(cell, params, jnp.zeros((3, 0)), carry=carry)
    for t in range(3):
        s = jax.tree.map(lambda leaf, t=t: leaf[t], run.carries)
        np.testing.assert_allclose(lstm(4, 4).step(params, s, s.h)[1], run.outputs[t], rtol=1e-13)


# --- masks ---


@pytest.mark.parametrize("factory", CELLS)
def test_mask_of_ones_equals_the_cell(factory):
    cell = with_recurrent_mask(factory(3, 4), recurrent_mask("full", 4))
    params, carry, x = random_state(cell, 3)
    assert_same_step(cell, factory(3, 4), params, carry, x)


@pytest.mark.parametrize("factory", [lstm, gru])
def test_mask_multiplies_the_recurrent_matrix_of_every_gate(factory):
    mask = recurrent_mask("direct+forward", 4, num_layers=2)
    cell = with_recurrent_mask(factory(3, 4), mask)
    params, carry, x = random_state(cell, 3)
    masked = {gate: p | {"W_h": p["W_h"] * mask} for gate, p in params.items()}
    assert_same_step(cell, factory(3, 4), params, carry, x, theirs_params=masked)
    gates, expected = cell.gates(params, carry, x), factory(3, 4).gates(masked, carry, x)
    jax.tree.map(np.testing.assert_array_equal, gates, expected)
    gradient = jax.grad(lambda p: cell.step(p, carry, x)[1].sum())(params)
    for p in gradient.values():
        assert (p["W_h"][mask == 0] == 0).all()
        assert abs(p["W_h"][mask == 1]).min() > 0


def test_masks_of_each_pattern_are_as_documented():
    layer = np.array([0, 0, 0, 1, 1])  # 5 units in 2 layers
    hears = {
        "direct": lambda i, j: i == j,
        "lateral": lambda i, j: layer[i] == layer[j] and i != j,
        "indirect": lambda i, j: layer[j] > layer[i],
        "forward": lambda i, j: layer[j] == layer[i] - 1,
        "full": lambda i, j: True,
    }
    for pattern, rule in hears.items():
        expected = [[float(rule(i, j)) for j in range(5)] for i in range(5)]
        np.testing.assert_array_equal(recurrent_mask(pattern, 5, num_layers=2), expected)
    every = recurrent_mask("direct + lateral+indirect+ forward", 5, num_layers=2)
    np.testing.assert_array_equal(every, np.ones((5, 5)))


def test_gradient_is_cut_after_as_many_steps_as_layers_with_indirect_feedback_only(key):
    cell = masked_of(2, 6, pattern="indirect", num_layers=3)
    norms = flow.log_norms(cell, cell.init(key), jax.random.normal(key, (5, 2)))
    np.testing.assert_array_equal(np.isfinite(norms), [True, True, True, False, False, False])


def test_direct_feedback_has_a_diagonal_jacobian():
    cell = masked_of(3, 4, pattern="direct")
    params, h, x = random_state(cell, 3)
    W_h = np.diag(np.diag(params["W_h"]))
    slope = 1 - np.tanh(params["W_x"] @ x + W_h @ h + params["b"]) ** 2
    np.testing.assert_allclose(jacobian(cell, params, h, x), slope[:, None] * W_h, rtol=1e-12)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: masked_of(3, 4, pattern="lateal"), "Unknown kind of connection 'lateal'. Did you"),
        (lambda: masked_of(3, 4, pattern="indirect"), "at least one connection, got 'indirect'"),
        (lambda: masked_of(3, 4, num_layers=5), "Expected num_layers to be between 1 and 4, got 5"),
        (
            lambda: with_recurrent_mask(lstm(3, 4), np.ones((3, 3))),
            r"Expected a mask of the shape of W_h, \(4, 4\), got \(3, 3\)",
        ),
        (
            lambda: with_recurrent_mask(rnn(3, 4)._replace(init=lambda key: {"u": key}), np.eye(4)),
            r"Expected a cell with a parameter W_h, got a cell with \['u'\]",
        ),
    ],
)
def test_bad_masks_raise(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- dropout ---


@pytest.mark.parametrize("factory", CELLS)
def test_dropout_at_rate_zero_equals_the_cell(factory):
    cell = with_dropout(factory(3, 4))
    params, carry, x = random_state(cell, 3)
    params |= {"u_x": jnp.linspace(0, 0.9, 3), "u_h": jnp.linspace(0, 0.9, 4)}
    assert_same_step(cell, factory(3, 4), params, carry, x, theirs_params=params["cell"])


@pytest.mark.parametrize("factory", CELLS)
def test_dropout_masks_the_arguments_of_each_matrix(factory):
    cell = with_dropout(factory(3, 4), rate_x=0.5, rate_h=0.2)
    params, carry, x = random_state(cell, 3)
    params |= {"u_x": jnp.array([0.4, 0.5, 0.9]), "u_h": jnp.array([0.1, 0.3, 0.19, 0.2])}
    m_x, m_h = np.array([0, 2, 2]), np.array([0, 1.25, 0, 1.25])
    thinned = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf * {"W_x": m_x, "W_h": m_h}.get(path[-1].key, 1), params["cell"]
    )
    assert_same_step(cell, factory(3, 4), params, carry, x, theirs_params=thinned)
    if cell.gates:
        gates, expected = cell.gates(params, carry, x), factory(3, 4).gates(thinned, carry, x)
        jax.tree.map(np.testing.assert_array_equal, gates, expected)


def test_masks_are_sampled_with_the_rate_and_resampled(key):
    cell = with_dropout(rnn(3, 2000, recurrent_init="identity"), rate_h=0.3)
    params = cell.init(key)
    again = resample_masks(key, params)
    assert again["cell"] is params["cell"]
    assert abs(again["u_h"] - params["u_h"]).max() > 0.5
    for sampled in (params, again):
        dropped = float((sampled["u_h"] < 0.3).mean())
        assert abs(dropped - 0.3) < 5 * np.sqrt(0.21 / 2000)
    gradient = jax.grad(lambda p: cell.step(p, jnp.ones(2000), jnp.ones(3))[1].sum())(params)
    assert (gradient["u_h"] == 0).all()


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: dropout_of(3, 4, rate_h=1.0),
            r"Expected rate_h to be at least 0 and below 1, got 1.0",
        ),
        (
            lambda: dropout_of(3, 4, rate_x=-0.5),
            r"Expected rate_x to be at least 0 and below 1, got -0.5",
        ),
        (lambda: zoneout_of(3, 4, rate=1.5), r"Expected rate to be between 0 and 1, got 1.5"),
        (
            lambda: zoneout_of(3, 4, rate={"h": 0.5}),
            r"Expected a rate for each field of the carry, \['h', 'c'\], got \{'h': 0.5\}",
        ),
    ],
)
def test_bad_rates_raise(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- zoneout ---


@pytest.mark.parametrize("factory", CELLS)
@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_zoneout_mixes_the_identity_into_the_jacobian(factory, rate):
    inner, cell = factory(3, 4), zoneout(factory(3, 4), rate=rate)
    params, carry, x = random_state(cell, 3)
    J_F = jacobian(inner, params, carry, x)
    expected = rate * np.eye(len(J_F)) + (1 - rate) * J_F
    np.testing.assert_allclose(jacobian(cell, params, carry, x), expected, rtol=1e-13, atol=1e-15)
    kept = inner.step(params, carry, x)[0] if rate == 0 else carry
    if rate != 0.3:
        jax.tree.map(np.testing.assert_array_equal, cell.step(params, carry, x)[0], kept)


def test_each_field_of_the_carry_has_its_own_zoneout_rate():
    cell = zoneout(lstm(3, 4), rate={"h": 0.05, "c": 0.5})
    params, old, x = random_state(cell, 3)
    new, F = cell.step(params, old, x)[0], lstm(3, 4).step(params, old, x)[0]
    np.testing.assert_allclose(new.h, 0.05 * old.h + 0.95 * F.h, rtol=1e-14)
    np.testing.assert_allclose(new.c, 0.5 * old.c + 0.5 * F.c, rtol=1e-14)


def test_sampled_zoneout_keeps_the_entries_whose_uniform_sample_is_below_the_rate():
    cell = zoneout(lstm(3, 2), rate={"h": 0.25, "c": 0.5}, sampled=True)
    params, old, x = random_state(lstm(3, 2), 3)
    u = jnp.array([0.3, 0.2, 0.3, 0.6])  # for h, then for c, as the carry is flattened
    new, h = cell.step(params, old, jnp.concatenate([x, u]))
    F = lstm(3, 2).step(params, old, x)[0]
    np.testing.assert_array_equal(new.h, [F.h[0], old.h[1]])
    np.testing.assert_array_equal(new.c, [old.c[0], F.c[1]])
    np.testing.assert_array_equal(h, new.h)
    gates = cell.gates(params, old, jnp.concatenate([x, u]))
    jax.tree.map(np.testing.assert_array_equal, gates, lstm(3, 2).gates(params, old, x))


def test_the_mean_of_sampled_zoneout_is_its_expectation(key):
    params, old, x = random_state(gru(3, 4), 3)
    u = jax.random.uniform(key, (4000, 4))
    sampled = zoneout(gru(3, 4), rate=0.3, sampled=True)
    mean = jax.vmap(lambda u: sampled.step(params, old, jnp.concatenate([x, u]))[1])(u).mean(0)
    F = gru(3, 4).step(params, old, x)[1]
    expected = zoneout(gru(3, 4), rate=0.3).step(params, old, x)[1]
    assert (abs(mean - expected) < 5 * abs(F - old) * np.sqrt(0.21 / 4000)).all()


# --- noise, as training samples it ---


def test_noise_reaches_every_layer_and_is_off_without_a_key(key):
    cell = stack_of(3, 4, cells="zoneout(cell='dropout(rate_h=0.5)', sampled=True),dropout")
    params, inputs = cell.init(key), jax.random.normal(key, (5, 2, 3))
    sampled, noisy = cell.noise(key, params, inputs)
    for layer in (0, 1):
        assert abs(sampled[layer]["u_h"] - params[layer]["u_h"]).max() > 0.1
        jax.tree.map(np.testing.assert_array_equal, sampled[layer]["cell"], params[layer]["cell"])
    assert noisy.shape == (5, 2, 3 + 8)
    np.testing.assert_array_equal(noisy[..., :3], inputs)
    random = unroll(cell, sampled, noisy).outputs
    quiet = unroll(cell, *cell.noise(None, params, inputs)).outputs
    clean = stack([zoneout(lstm(3, 4)), lstm(4, 4)])
    own = tuple(layer["cell"] for layer in params)
    np.testing.assert_allclose(quiet, unroll(clean, own, inputs).outputs, rtol=1e-12)
    assert abs(random - quiet).max() > 1e-3
    assert stack_of(3, 4).noise is None and zoneout_of(3, 4).noise is None


def test_sampled_zoneout_without_noise_equals_its_expectation(key):
    cell, mean = zoneout_of(3, 4, sampled=True), zoneout_of(3, 4)
    params, carry, x = random_state(lstm(3, 4), 3)
    assert_same_step(cell, mean, params, carry, x)
    jax.tree.map(np.testing.assert_array_equal, *(c.gates(params, carry, x) for c in (cell, mean)))
    u = jnp.full(8, 0.05)  # below the rate: everything is kept
    jax.tree.map(np.testing.assert_array_equal, cell.step(params, carry, jnp.r_[x, u])[0], carry)


def test_feedback_of_a_cell_with_noise_in_its_inputs_raises(key):
    inputs = jnp.zeros((5, 2, 3))
    inside = feedback_of(3, 4, cell="zoneout(cell='rnn', sampled=True)")
    with pytest.raises(ValueError, match="Expected feedback of a cell without noise in its inputs"):
        inside.noise(key, inside.init(key), inputs)
    upper = stack_of(3, 4, cells="rnn,zoneout(cell='rnn', sampled=True)")
    with pytest.raises(
        ValueError, match=r"lowest layer only, got it in the input of layer 1 \(counted"
    ):
        upper.noise(key, upper.init(key), inputs)
    dropped = feedback_of(3, 4, cell="dropout(cell='rnn')")
    assert dropped.noise(None, dropped.init(key), inputs)[1] is inputs
