"""Truncated backpropagation against its definition, with every carry held fixed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradflow import unroll
from gradflow.cells import rnn
from gradflow.train.direction import compare
from gradflow.train.truncation import (
    begin_stream,
    truncated_gradient,
    window_gradient,
)

NUM_STEPS, BATCH = 5, 2


def losses(params, outputs, extra):
    targets, weights = extra
    predictions = outputs @ params["readout"].T
    return jnp.sum(weights * jnp.sum((predictions - targets) ** 2, axis=-1), axis=1)


def problem(cell, key):
    keys = jax.random.split(key, 5)
    params = {
        "cell": jax.tree.map(lambda leaf: 2 * leaf, cell.init(keys[0])),
        "readout": jax.random.normal(keys[1], (2, 3)),
    }
    inputs = jax.random.normal(keys[2], (NUM_STEPS, BATCH, 2))
    targets = jax.random.normal(keys[3], (NUM_STEPS, BATCH, 2))
    return params, inputs, (targets, jax.random.uniform(keys[4], (NUM_STEPS, BATCH)))


def by_definition(cell, params, inputs, extra, k1, k2):
    """Σ over windows of ∂/∂θ of the newest losses, with s_{t-k2} and all before it held fixed."""

    def total(params):
        loss = 0.0
        for first in range(0, NUM_STEPS, k1):
            t = min(first + k1, NUM_STEPS)
            carry = jax.tree.map(lambda leaf: jnp.stack([leaf] * BATCH), cell.initial_carry())
            outputs = []
            for step in range(t):
                carry, h = jax.vmap(cell.step, (None, 0, 0))(params["cell"], carry, inputs[step])
                if step < t - k2:
                    carry, h = jax.lax.stop_gradient((carry, h))
                outputs.append(h)
            newest = jax.tree.map(lambda leaf, b=first, t=t: leaf[b:t], extra)
            loss += jnp.sum(losses(params, jnp.stack(outputs[first:]), newest))
        return loss

    return jax.value_and_grad(total)(params)


def assert_close(tree, expected, tolerance=1e-12):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance),
        tree,
        expected,
    )


@pytest.mark.parametrize("k1, k2", [(2, 3), (3, 1), (1, 4)])
def test_the_gradient_is_the_one_of_the_definition(k1, k2, key):
    cell = rnn(2, 3)
    params, inputs, extra = problem(cell, key)
    compute = jax.jit(lambda params: truncated_gradient(
        losses, cell, params, inputs, extra, k1=k1, k2=k2
    ))  # fmt: skip
    expected = jax.jit(lambda params: by_definition(cell, params, inputs, extra, k1, k2))(params)
    assert_close(tuple(compute(params)), expected)


def test_windows_of_the_whole_length_are_full_backpropagation(key):
    cell = rnn(2, 3)
    params, inputs, extra = problem(cell, key)
    found = truncated_gradient(losses, cell, params, inputs, extra, k1=NUM_STEPS, k2=NUM_STEPS)

    def full(params):
        return jnp.sum(losses(params, unroll(cell, params["cell"], inputs).outputs, extra))

    assert_close(tuple(found), jax.value_and_grad(full)(params))


def test_comparison_gives_the_angle_and_the_ratio_of_norms_to_the_full_gradient(key):
    cell = rnn(2, 3)
    params, inputs, extra = problem(cell, key)
    gradients = [
        truncated_gradient(losses, cell, params, inputs, extra, k1=1, k2=k2).gradient["cell"]
        for k2 in (1, NUM_STEPS)
    ]
    bias, none = compare(*gradients), compare(gradients[1], gradients[1])
    truncated, full = (
        np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(gradient)])
        for gradient in gradients
    )
    norms = np.linalg.norm(truncated), np.linalg.norm(full)
    np.testing.assert_allclose(bias.cosine, truncated @ full / norms[0] / norms[1])
    np.testing.assert_allclose(bias.norm_ratio, norms[0] / norms[1])
    np.testing.assert_allclose((none.cosine, none.norm_ratio), 1)
    assert bias.cosine < 0.999


def test_a_stream_learns_from_window_to_window_with_its_carry_kept(key):
    """A parameter is updated after each window, in one scan; redone here without any state."""
    cell = rnn(2, 3)
    params, inputs, extra = problem(cell, key)
    inputs, extra = jax.tree.map(lambda leaf: leaf[:4], (inputs, extra))
    rate, k1, k2 = 0.05, 2, 3

    def descend(params, gradient):
        return jax.tree.map(lambda p, g: p - rate * g, params, gradient)

    def one(state, window):
        params, stream = state
        stream, found = window_gradient(losses, cell, params, stream, window, k2=k2)
        return (descend(params, found.gradient), stream), found.loss

    windows = jax.tree.map(lambda leaf: leaf.reshape(2, k1, *leaf.shape[1:]), (inputs, extra))
    stream = begin_stream(cell, params, inputs, k1=k1, k2=k2)
    (learned, stream), _ = jax.lax.scan(one, (params, stream), windows)

    carry = None  # of the step before the last window's first: no gradient comes from there
    for t in (2, 4):
        first = max(t - k2, 0)

        def loss(params, first=first, t=t, carry=carry):
            outputs = unroll(cell, params["cell"], inputs[first:t], carry=carry).outputs
            return jnp.sum(
                losses(params, outputs[-k1:], jax.tree.map(lambda e: e[t - k1 : t], extra))
            )

        gradient = jax.grad(loss)(params)
        reached = unroll(cell, params["cell"], inputs[first:t], carry=carry).carries
        carry = reached[t + k1 - k2 - first]
        params = descend(params, gradient)
    assert_close(learned, params)
    assert_close(stream.carry, carry)


def test_what_cannot_be_truncated_is_refused(key):
    cell = rnn(2, 3)
    params, inputs, extra = problem(cell, key)
    for k1, k2, message in ((1, 0, "Expected k2 to be at least 1, got 0"),
                            (0, 1, "Expected k1 to be at least 1, got 0")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            truncated_gradient(losses, cell, params, inputs, extra, k1=k1, k2=k2)
    with pytest.raises(TypeError, match="Expected k2 to be an integer, got True"):
        truncated_gradient(losses, cell, params, inputs, extra, k1=1, k2=True)
    with pytest.raises(ValueError, match=r"Expected .* \(T, B, input\), got \(1, 2, 5, 2\)"):
        begin_stream(cell, params, jnp.zeros((1, 2, 5, 2)), k1=1, k2=1)
    with pytest.raises(ValueError, match=r"Expected .* \(T, B, input\), got \(0, 2, 2\)"):
        truncated_gradient(losses, cell, params, inputs[:0], extra, k1=1, k2=1)
