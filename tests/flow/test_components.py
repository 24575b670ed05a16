"""The shares of the steps in ∂L/∂θ against the gradient by parameters that are each step's own."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from products import problem, weighted

from gradflow.cell import Cell
from gradflow.cells import gru, gru_reset_before, lstm, rnn
from gradflow.flow.adjoint import log_adjoint_norms
from gradflow.flow.components import component_gradients, component_map, components
from gradflow.flow.outer_products import factored_pull
from gradflow.flow.reverse import linearise, run_with_loss
from gradflow.flow.trace import trace_of
from gradflow.unroll import unroll

T = 6


def user_cell(step, **shapes):
    """A cell of 4 units with parameters of the shapes given."""

    def init(key):
        keys = jax.random.split(key, len(shapes))
        return {
            name: jax.random.normal(k, shape)
            for k, (name, shape) in zip(keys, shapes.items(), strict=True)
        }

    return Cell(init, lambda p, h, x: (step(p, h, x),) * 2, lambda: jnp.zeros(4))


def rotation(p, h, x):
    return jnp.tanh(jax.scipy.linalg.expm(p["A"] - p["A"].T) @ h + p["W_x"] @ x)


CELLS = {
    "rnn": rnn(3, 4),
    "gru": gru(3, 4),
    "gru_reset_before": gru_reset_before(3, 4),
    "lstm": lstm(3, 4, peephole=True),
    "joined": user_cell(lambda p, h, x: jnp.tanh(p["W"] @ jnp.concatenate([x, h])), W=(4, 7)),
    "row_vectors": user_cell(lambda p, h, x: jnp.tanh(h @ p["W"] + x @ p["V"]), W=(4, 4), V=(3, 4)),
    "shared": user_cell(lambda p, h, x: jnp.tanh(p["W"] @ (p["W"] @ h + x[0])), W=(4, 4)),
    "rotation": user_cell(rotation, A=(4, 4), W_x=(4, 3)),
    "jitted": user_cell(jax.jit(lambda p, h, x: jnp.tanh(p["W"] @ h + x[0])), W=(4, 4)),
    "unused": user_cell(lambda p, h, x: jnp.tanh(p["W"] @ h + x[0]), W=(4, 4), never=(2, 3)),
    "scalar": user_cell(lambda p, h, x: jnp.tanh(p["a"] * h + x[0]), a=()),
    "bilinear": user_cell(lambda p, h, x: jnp.einsum("ijk,j,k", p["B"], h + 1, x), B=(4, 4, 3)),
}


setup = functools.partial(problem, num_steps=T)


def losses(outputs):
    """One loss a step, the t-th of h_t."""
    return jnp.sum(jnp.sin(outputs), axis=1) * jnp.arange(1.0, len(outputs) + 1)


def gradients_by_step(loss, cell, params, inputs, carry):
    """∂L/∂θ_k where every step k has parameters θ_k of its own."""

    @jax.jit
    @jax.jacrev
    def by_own(own):
        _, outputs = jax.lax.scan(lambda s, now: cell.step(now[0], s, now[1]), carry, (own, inputs))
        return loss(outputs)

    return by_own(jax.tree.map(lambda leaf: jnp.stack([leaf] * len(inputs)), params))


def log_norms(shares):
    with np.errstate(divide="ignore"):
        return jax.tree.map(
            lambda leaf: np.log(np.linalg.norm(np.reshape(leaf, (len(leaf), -1)), axis=1)), shares
        )


def assert_trees_close(measured, expected, **tolerance):
    assert jax.tree.structure(measured) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(measured), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


@pytest.mark.parametrize("name", CELLS)
def test_components_are_the_gradients_by_the_parameters_of_each_step(name):
    cell = CELLS[name]
    params, inputs, carry = setup(cell)
    expected = gradients_by_step(weighted, cell, params, inputs, carry)
    shares = component_gradients(cell, params, inputs, loss=weighted, carry=carry)
    assert_trees_close(shares, expected, rtol=1e-10, atol=1e-12)
    measured = components(cell, params, inputs, loss=weighted, carry=carry)
    assert_trees_close(measured, log_norms(expected), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["rnn", "lstm", "shared", "rotation"])
def test_components_sum_to_the_gradient(name):
    cell = CELLS[name]
    params, inputs, carry = setup(cell, seed=2)

    def loss(p):
        return weighted(unroll(cell, p, inputs, carry=carry).outputs)

    gradient = jax.jit(jax.grad(loss))(params)
    shares = component_gradients(cell, params, inputs, loss=weighted, carry=carry)
    for total, share in zip(jax.tree.leaves(gradient), jax.tree.leaves(shares), strict=True):
        size = np.linalg.norm(total)
        np.testing.assert_allclose(np.sum(share, axis=0), total, rtol=0, atol=1e-12 * size)


def test_an_unused_parameter_has_no_component():
    cell = CELLS["unused"]
    params, inputs, carry = setup(cell)
    measured = components(cell, params, inputs, loss=weighted, carry=carry)
    np.testing.assert_array_equal(measured["never"], -np.inf)
    assert np.isfinite(measured["W"]).all()


@pytest.mark.parametrize(
    ("name", "factors"),
    [
        ("rnn", {"W_h": 2, "W_x": 2, "b": 1}),
        ("joined", {"W": 2}),
        ("row_vectors", {"W": 2, "V": 2}),
        ("shared", {"W": 1}),
        ("rotation", {"A": 1, "W_x": 2}),
        ("jitted", {"W": 2}),  # `exact_slopes` opens the jit
    ],
)
def test_only_outer_products_are_split_into_factors(name, factors):
    cell = CELLS[name]
    params, inputs, carry = setup(cell)
    trace, cotangents = run_with_loss(trace_of, cell, params, inputs, loss=weighted, carry=carry)
    direct = linearise(trace, cotangents)
    s, x = jax.tree.map(lambda leaf: leaf[3], (trace.before, trace.xs))
    adjoint = jax.tree.map(lambda leaf: leaf[3], direct.value)
    found, _ = factored_pull(trace)(s, x, adjoint)
    assert [len(one) for one in found] == jax.tree.leaves(factors)


@pytest.mark.parametrize("name", ["lstm", "rotation"])
def test_the_map_has_the_components_of_every_loss(name):
    cell = CELLS[name]
    params, inputs, carry = setup(cell)
    measured = component_map(cell, params, inputs, losses=losses, carry=carry)
    expected = gradients_by_step(losses, cell, params, inputs, carry)  # leaves (t, k, ...)
    for t in range(T):
        row = jax.tree.map(lambda leaf, t=t: leaf[t], measured)
        past = jax.tree.map(lambda leaf, t=t: leaf[: t + 1], row)
        by_step = log_norms(jax.tree.map(lambda leaf, t=t: leaf[t, : t + 1], expected))
        assert_trees_close(past, by_step, rtol=1e-10, atol=1e-10)
        for leaf in jax.tree.leaves(row):
            assert np.isnan(leaf[t + 1 :]).all()


def test_linear_cell_has_its_closed_form_far_below_any_float():
    num_steps, gain = 2000, 0.3
    cell = rnn(4, 4, activation="identity")
    params = cell.init(jax.random.key(3))
    params = params | {"W_h": gain * params["W_h"], "W_x": jnp.eye(4)}
    inputs = jax.random.normal(jax.random.key(4), (num_steps, 4))
    measured = components(cell, params, inputs, loss=lambda h: h[-1, 0])
    log_adjoint = np.arange(num_steps - 1, -1, -1) * np.log(gain)  # log ‖∂L/∂s_k‖, k = 1 ... T
    before = unroll(cell, params, inputs).carries[1:-1]
    np.testing.assert_allclose(measured["b"], log_adjoint, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(
        measured["W_x"], log_adjoint + np.log(np.linalg.norm(inputs, axis=1)), rtol=1e-12
    )
    np.testing.assert_allclose(
        measured["W_h"][1:], log_adjoint[1:] + np.log(np.linalg.norm(before, axis=1)), rtol=1e-12
    )
    assert np.isneginf(measured["W_h"][0])  # h_0 = 0

    shares = component_gradients(cell, params, inputs, loss=lambda h: h[-1, 0])
    np.testing.assert_array_equal(shares["b"][0], 0)


def test_the_map_of_a_linear_cell_depends_on_the_lag_alone():
    num_steps, gain = 300, 0.05  # 0.05^300 is 1e-390
    cell = rnn(2, 2, activation="identity")
    params = cell.init(jax.random.key(3))
    params = params | {"W_h": gain * params["W_h"]}
    measured = component_map(cell, params, jnp.ones((num_steps, 2)), losses=lambda h: h[:, 0])
    lag = np.subtract.outer(np.arange(num_steps), np.arange(num_steps))
    expected = np.where(lag >= 0, lag * np.log(gain), np.nan)
    np.testing.assert_allclose(measured["b"], expected, rtol=1e-12, atol=1e-12)


def test_a_small_factor_is_not_lost_to_its_square():
    # A share that is 1e-200 times as large as the adjoint: its square is below any float.
    cell = user_cell(lambda p, h, x: h + 1e-200 * (p["W"] @ x) + 1e-200 * p["b"], W=(4, 3), b=(4,))
    params, inputs, carry = setup(cell)
    measured = components(cell, params, inputs, loss=lambda h: h[-1, 0], carry=carry)
    np.testing.assert_allclose(measured["b"], -200 * math.log(10), rtol=1e-12)
    np.testing.assert_allclose(
        measured["W"], -200 * math.log(10) + np.log(np.linalg.norm(inputs, axis=1)), rtol=1e-12
    )


def test_a_padded_step_has_no_component():
    cell = CELLS["lstm"]
    params, inputs, carry = setup(cell)
    options = {"carry": carry}
    short = components(cell, params, inputs[:4], loss=lambda h: jnp.sum(h[-1]), **options)
    padded = components(cell, params, inputs, loss=lambda h: jnp.sum(h[-1]), lengths=4, **options)
    assert_trees_close(jax.tree.map(lambda leaf: leaf[:4], padded), short, rtol=1e-12)
    for leaf in jax.tree.leaves(padded):
        assert np.isneginf(leaf[4:]).all()


def test_float32_stays_float32_and_goes_below_it():
    cell = rnn(4, 4, activation="identity")
    params = cell.init(jax.random.key(3))
    params = params | {"W_h": 0.3 * params["W_h"]}
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    inputs = jnp.ones((300, 4), jnp.float32)
    measured = components(cell, params, inputs, loss=lambda h: h[-1, 0])
    assert {leaf.dtype for leaf in jax.tree.leaves(measured)} == {jnp.dtype("float32")}
    expected = np.arange(299, -1, -1) * np.log(0.3)
    np.testing.assert_allclose(measured["b"], expected, rtol=1e-5, atol=1e-5)


def test_the_component_of_a_bias_inside_the_carry_is_the_adjoint():
    cell = user_cell(lambda p, h, x: jnp.tanh(h) + x[0] + p["b"], b=(4,))
    params, inputs, carry = setup(cell)
    measured = components(cell, params, inputs, loss=weighted, carry=carry)
    expected = log_adjoint_norms(cell, params, inputs, loss=weighted, carry=carry)
    np.testing.assert_allclose(measured["b"], expected[1:], rtol=1e-12)


def test_losses_of_another_shape_are_an_error():
    cell = CELLS["rnn"]
    params, inputs, _ = setup(cell)
    with pytest.raises(ValueError, match=r"Expected a loss of shape \(6,\) .* got shape \(\)"):
        component_map(cell, params, inputs, losses=weighted)
    with pytest.raises(ValueError, match=r"Expected a loss of shape \(\) .* got shape \(6,\)"):
        components(cell, params, inputs, loss=losses)
    with pytest.raises(TypeError, match="Expected a loss that returns a floating"):
        component_gradients(cell, params, inputs, loss=lambda h: "large")
