"""What the tests of foreign frameworks compare, and cells of Keras from its documentation."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from oracle import sigmoid

from gradflow.flow import log_norms
from gradflow.interop import Layer

T = 7

Step = Callable[[Any, Any], tuple[Any, Any]]
"""One step of the original, (carry, x) -> (carry, h); the carry is h, or (h, c)."""


def random_inputs(size: int, *, num: int = 2, seed: int = 3) -> np.ndarray:
    """Inputs (num, T, size), other ones than those of the verification."""
    return np.random.default_rng(seed).normal(size=(num, T, size)).astype(np.float32)


def check_outputs(
    layer: Layer, original: Callable[[np.ndarray], Any], tolerance: float = 1e-6
) -> None:
    """The layer's outputs equal the original's, in the time of the model."""
    inputs = random_inputs(layer.input_size)
    np.testing.assert_allclose(layer.run(inputs), original(inputs), rtol=0, atol=tolerance)


def check_step(layer: Layer, step: Step, tolerance: float = 1e-6) -> None:
    """A step and its Jacobian on the whole carry equal automatic differentiation's."""
    key = jax.random.key(5)
    carry = jax.tree.map(lambda s: jax.random.normal(key, s.shape) / 2, layer.cell.initial_carry())
    theirs = tuple(carry) if isinstance(carry, tuple) else carry
    x = jnp.asarray(random_inputs(layer.input_size)[0, 0], float)
    params = jax.tree.map(jnp.asarray, layer.params)
    ours = jax.jacobian(lambda s: layer.cell.step(params, s, x)[0])(carry)
    expected = jax.jacobian(lambda s: step(s, x)[0])(theirs)
    for found, wanted in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance)


def check_log_norms(layer: Layer, step: Step, tolerance: float = 1e-5) -> None:
    """log ‖∂h_T/∂h_k‖ for all k equals automatic differentiation through the original."""
    turn = -1 if layer.direction == "reverse" else 1
    x = jnp.asarray(random_inputs(layer.input_size, num=1)[0][::turn], float)

    def last(shifts: jax.Array) -> jax.Array:
        start = layer.cell.initial_carry()
        carry: Any = tuple(start) if isinstance(start, tuple) else start
        for t in range(T):
            carry, _ = step(carry, x[t])
            carry = (
                (carry[0] + shifts[t], *carry[1:])
                if isinstance(carry, tuple | list)
                else carry + shifts[t]
            )
        return carry[0] if isinstance(carry, tuple) else carry

    size = layer.run(np.asarray(x)[None]).shape[-1]
    jacobians = jnp.moveaxis(jax.jacobian(last)(jnp.zeros((T, size))), 1, 0)
    expected = [float(jnp.log(jnp.linalg.norm(block, 2))) for block in jacobians]
    found = log_norms(layer.cell, jax.tree.map(jnp.asarray, layer.params), x)
    np.testing.assert_allclose(found[:T], expected[::-1], rtol=0, atol=tolerance)


def keras_lstm(x, K, R, b, gate=sigmoid):
    """Keras's LSTM on (T, input): columns i f c o."""
    h = c = np.zeros(len(R))
    outputs = []
    for x_t in x:
        i, f, g, o = np.split(x_t @ K + h @ R + b, 4)
        c = gate(f) * c + gate(i) * np.tanh(g)
        h = gate(o) * np.tanh(c)
        outputs.append(h)
    return np.array(outputs)


def keras_gru(x, K, R, b_x, b_h, *, reset_after=True, gate=sigmoid):
    """Keras's GRU on (T, input): columns z r h."""
    h = np.zeros(len(R))
    outputs = []
    for x_t in x:
        z_x, r_x, n_x = np.split(x_t @ K + b_x, 3)
        z_h, r_h, n_h = np.split(h @ R + b_h, 3)
        z, r = gate(z_x + z_h), gate(r_x + r_h)
        inner = r * n_h if reset_after else (r * h) @ R[:, 2 * len(R) :]
        h = z * h + (1 - z) * np.tanh(n_x + inner)
        outputs.append(h)
    return np.array(outputs)
