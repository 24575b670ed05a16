"""Deep feed-forward networks as cells: layer l is time step l, and its weights are the input x_l.

::

    h_l = W_l φ(h_{l-1})    ∂h_L/∂h_0 = W_L D_{L-1} ... W_1 D_0    D_l = diag(φ'(h_l))

So a measurement of `gradflow.flow` at lag L is one of the end-to-end Jacobian of L layers.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gradflow import Cell, Params
from gradflow.initializers import resolve_initializer

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "linear": lambda x: x,
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "hard_tanh": jax.nn.hard_tanh,
}


def layers(width: int, activation: str) -> Cell:
    """Makes the cell of a network of this width; its input is W_l as a row of width² entries."""
    phi = ACTIVATIONS[activation]

    def step(params: Params, h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        del params
        h = x.reshape(width, width) @ phi(h)
        return h, h

    return Cell(lambda key: {}, step, lambda: jnp.zeros(width))


def weights(key: jax.Array, law: str, num_layers: int, width: int, gain: float) -> jax.Array:
    """Samples gain W_l of all layers, orthogonal or N(0, 1/width), of shape (layers, width²)."""
    spec = {"orthogonal": "orthogonal", "gaussian": "normal(gain=1.0)"}[law]
    init = resolve_initializer(spec)

    def one(key: jax.Array) -> jax.Array:
        return gain * init(key, (width, width), jnp.zeros(()).dtype).ravel()

    return jax.vmap(one)(jax.random.split(key, num_layers))
