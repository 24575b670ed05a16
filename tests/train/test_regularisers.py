"""Omega against the formula with its derivative written out, and flossing against differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradflow import Cell, flow, unroll
from gradflow.cells import lstm, rnn
from gradflow.train.held_slopes import hold_slopes
from gradflow.train.omega import preserve_norm
from gradflow.train.regularisers import REGULARISERS, resolve_regulariser

NUM_STEPS, BATCH = 4, 2


def last_alone(outputs):
    return jnp.sum(outputs[-1] ** 3) / BATCH


def early_alone(outputs):
    return jnp.sum(jnp.sin(outputs[1])) / BATCH


def inputs_and_params(cell, key):
    k_params, k_inputs = jax.random.split(key)
    params = jax.tree.map(lambda leaf: 1.5 * leaf, cell.init(k_params))
    return params, jax.random.normal(k_inputs, (NUM_STEPS, BATCH, 2))


def numpy_omega(h, adjoints, weights, squared):
    """Ω and its immediate derivative, for h_k = tanh(W h_{k-1} + ...): h and adjoints given."""
    deviations, gradient, count = [], np.zeros_like(weights), 0
    for k in range(1, NUM_STEPS + 1):
        for b in range(BATCH):
            a = adjoints[k, b]
            if a @ a < 1e-20:
                continue
            left = a * (1 - h[k, b] ** 2)  # held fixed, as a and h are
            pulled = left @ weights
            ratio = (pulled @ pulled) / (a @ a)
            slope = 2 * np.outer(left, pulled) / (a @ a)
            if not squared:
                ratio = np.sqrt(ratio)
                slope = slope / (2 * ratio)
            deviations.append((ratio - 1) ** 2)
            gradient += 2 * (ratio - 1) * slope
            count += 1
    return sum(deviations) / count, gradient / count, count


@pytest.mark.parametrize(
    "loss, squared, count",
    [(last_alone, False, NUM_STEPS * BATCH), (early_alone, True, 2 * BATCH)],
)
def test_omega_and_its_immediate_derivative_on_a_tanh_net(loss, squared, count, key):
    cell = rnn(2, 4)
    params, inputs = inputs_and_params(cell, key)
    regulariser = resolve_regulariser(f"omega(weight=2, squared={squared})")
    value, gradient = jax.jit(
        jax.value_and_grad(lambda p: regulariser(cell, p, inputs, loss))
    )(params)  # fmt: skip

    def adjoints_of(b):
        def alone(outputs):
            others = jnp.zeros((NUM_STEPS, BATCH, 4)).at[:, b].set(outputs)
            return loss(others)

        return flow.adjoints(cell, params, inputs[:, b], loss=alone)

    adjoints = np.stack([adjoints_of(b) for b in range(BATCH)], axis=1)
    h = np.asarray(unroll(cell, params, inputs).carries)
    expected, slope, found = numpy_omega(h, adjoints, np.asarray(params["W_h"]), squared)
    assert found == count
    np.testing.assert_allclose(value, 2 * expected, rtol=1e-10)
    np.testing.assert_allclose(gradient["W_h"], 2 * slope, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(gradient["W_x"], 0)
    np.testing.assert_array_equal(gradient["b"], 0)


def test_omega_takes_the_whole_carry(key):
    """The ratio at each step of an LSTM, from its step Jacobians and the adjoints of (h, c)."""
    cell = lstm(2, 3)
    params, inputs = inputs_and_params(cell, key)
    inputs = inputs[:, :1]
    value = jax.jit(lambda p: preserve_norm(cell, p, inputs, loss=lambda o: jnp.sum(o[-1] ** 3)))(
        params
    )
    adjoints = flow.adjoints(cell, params, inputs[:, 0], loss=lambda o: jnp.sum(o[-1] ** 3))
    carries = unroll(cell, params, inputs[:, 0]).carries
    jacobian = jax.jit(jax.jacrev(lambda s, x: cell.step(params, s, x)[0]))
    deviations = []
    for k in range(1, NUM_STEPS + 1):
        before = jax.tree.map(lambda leaf, k=k: leaf[k - 1], carries)
        J = jacobian(before, inputs[k - 1, 0])
        J = np.block([[J.h.h, J.h.c], [J.c.h, J.c.c]])
        a = np.concatenate([adjoints.h[k], adjoints.c[k]])
        deviations.append((np.linalg.norm(a @ J) / np.linalg.norm(a) - 1) ** 2)
    np.testing.assert_allclose(value, np.mean(deviations), rtol=1e-10)


def rotation(key):
    W = jnp.linalg.qr(jax.random.normal(key, (4, 4)))[0]
    return Cell(
        lambda key: {"W": W},
        lambda params, s, x: (params["W"] @ s + x.sum(), params["W"] @ s + x.sum()),
        lambda: jnp.zeros(4),
    )


def test_both_are_zero_for_a_rotation(key):
    cell = rotation(key)
    params, inputs = inputs_and_params(cell, key)
    params = cell.init(key)
    for spec in ("omega", "flossing(num_exponents=4, burn_in=1, num_sequences=2)"):
        value = resolve_regulariser(spec)(cell, params, inputs, last_alone)
        np.testing.assert_allclose(value, 0, atol=1e-20)
        grown = jax.tree.map(lambda W: 1.1 * W, params)
        value = resolve_regulariser(spec)(cell, grown, inputs, last_alone)
        np.testing.assert_allclose(value, {"o": 0.1, "f": np.log(1.1)}[spec[0]] ** 2, rtol=1e-8)


def test_flossing_is_the_mean_square_of_the_first_exponents_and_so_is_its_gradient(key):
    cell = rnn(2, 4)
    params, inputs = inputs_and_params(cell, key)
    regulariser = resolve_regulariser("flossing(weight=3, num_exponents=2, num_sequences=2)")
    value, gradient = jax.jit(
        jax.value_and_grad(lambda p: regulariser(cell, p, inputs, last_alone))
    )(params)  # fmt: skip

    @jax.jit
    def by_hand(params):
        squares = []
        for b in range(2):
            largest = flow.lyapunov_exponents(cell, params, inputs[:, b]).exponents[:2]
            squares.append(largest**2)
        return 3 * jnp.mean(jnp.stack(squares))

    np.testing.assert_allclose(value, by_hand(params), rtol=1e-10)
    direction = jax.tree.map(lambda leaf: jnp.cos(7 * leaf), params)
    ahead, behind = (
        by_hand(jax.tree.map(lambda p, d, e=e: p + e * d, params, direction)) for e in (1e-5, -1e-5)
    )
    slope = sum(jax.tree.leaves(jax.tree.map(lambda g, d: jnp.sum(g * d), gradient, direction)))
    np.testing.assert_allclose(slope, (ahead - behind) / 2e-5, rtol=1e-6)


def test_held_slopes_leave_values_and_slopes_and_take_curvature_of_products_alone():
    def function(w, z):
        return jnp.tanh(w * z) * jax.nn.sigmoid(z) + jax.nn.relu(w) * z

    held = hold_slopes(function)
    at = jnp.array(0.7), jnp.array(-0.4)
    np.testing.assert_allclose(held(*at), function(*at))
    for argument in (0, 1):
        np.testing.assert_allclose(jax.grad(held, argument)(*at), jax.grad(function, argument)(*at))
    w, z = 0.7, -0.4
    tanh, sigmoid = np.tanh(w * z), 1 / (1 + np.exp(-z))
    slopes = 1 - tanh**2, sigmoid * (1 - sigmoid)
    # ∂²/∂w∂z of (tanh + s (w z - w_0 z_0)) (sigmoid + r (z - z_0)) + w z
    expected = slopes[0] * sigmoid + slopes[0] * z * slopes[1] + 1
    np.testing.assert_allclose(jax.grad(jax.grad(held, 1), 0)(*at), expected)


def test_bad_names_and_options_are_refused(key):
    assert set(REGULARISERS) == {"flossing", "omega"}
    for spec, message in {
        "omga": "Unknown regulariser 'omga'. Did you mean 'omega'",
        "omega(alpha=2)": "'alpha' of regulariser 'omega'. Known: weight, squared",
        "omega(weight=0)": "Expected weight to be positive, got 0",
        "flossing(weight=-1)": "Expected weight to be positive, got -1",
        "flossing(num_exponents=0)": "Expected num_exponents to be at least 1, got 0",
        "flossing(burn_in=-1)": "Expected burn_in to be at least 0, got -1",
    }.items():
        with pytest.raises(ValueError, match=message):
            resolve_regulariser(spec)
    with pytest.raises(TypeError, match="Expected squared to be True or False, got 1"):
        resolve_regulariser("omega(squared=1)")
    cell = rnn(2, 4)
    with pytest.raises(ValueError, match="at least num_sequences=4 sequences, got 2"):
        resolve_regulariser("flossing(num_sequences=4)")(
            cell, *inputs_and_params(cell, key), last_alone
        )
