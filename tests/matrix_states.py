"""What the tests of cells with a matrix for each head share."""

import jax
import jax.numpy as jnp
import numpy as np
from oracle import random_state, sigmoid

from gradflow.unroll import unroll

HEADS = 2


def silu(a):
    return a * sigmoid(a)


def unit(a):
    return a / np.sqrt(np.sum(a**2))


def split(params, x):
    """W_x x + b of every projection by name, as a list of heads, in NumPy."""
    return {
        name: np.split(p["W_x"] @ x + p.get("b", 0.0), HEADS)
        for name, p in params.items()
        if isinstance(p, dict)
    }


def sample(cell, num_steps=7):
    """Random parameters in NumPy, inputs (num_steps, 3), and the outputs on them."""
    params, _, _ = random_state(cell, 3)
    inputs = jax.random.normal(jax.random.key(1), (num_steps, 3))
    outputs = np.asarray(unroll(cell, params, inputs).outputs)
    return jax.tree.map(np.asarray, params), np.asarray(inputs), outputs


def transitions(cell):
    """∂S_t/∂S_{t-1} of a random step, and the step's parameters, inputs and carry, in NumPy."""
    state = params, carry, x = random_state(cell, 3)
    step = lambda S: cell.step(params, carry._replace(S=S), x)[0].S.ravel()  # noqa: E731
    jacobian = jax.jacobian(step)(carry.S).reshape(carry.S.size, -1)
    return np.asarray(jacobian), *jax.tree.map(np.asarray, state)


def on_each_row(matrices):
    """∂S'/∂S for S' = S M in each head: the ravelled Jacobian I ⊗ Mᵀ, head by head."""
    size = len(matrices[0])
    whole = np.zeros((len(matrices), size**2, len(matrices), size**2))
    for i, M in enumerate(matrices):
        whole[i, :, i, :] = np.kron(np.eye(size), M.T)
    return whole.reshape(len(matrices) * size**2, -1)


def in_float32(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree)
