"""The tanh RNN of Engelken's tasks, and its flossing: Adam on the mean square of its exponents.

Source: Engelken 2023, arXiv:2312.17306, and its code (RainerEngelken/GradientFlossing).
"""

import functools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray

from gradflow import Cell, Params
from gradflow.cells import resolve
from gradflow.train import Descent, descend, resolve_regulariser

BURN_IN = 15
LEARNING_RATE = 1e-3


@functools.cache
def net(units: int) -> Cell:
    """The network with gain 1; one value for each size, so that programs are compiled once."""
    spec = f"rnn(recurrent_init='normal(std={units**-0.5})', input_init='normal(std=1.0)')"
    cell = resolve(spec)(1, units)

    def init(key: jax.Array) -> Params:
        params, k_bias = cell.init(key), jax.random.fold_in(key, 1)
        return {**params, "b": 0.1 * jax.random.uniform(k_bias, (units,))}

    return cell._replace(init=init)


@partial(jax.jit, static_argnums=0)
def floss(config: Any, cells: Params, keys: jax.Array) -> tuple[Params, jax.Array]:
    """Flosses networks; returns their parameters, and √(mean λ_i²) at every epoch.

    Args:
      config: The size and the length of the flossing.
      cells: Parameters of the networks, with an axis of networks in front.
      keys: A key for the inputs of each network.
    """
    cell, adam = net(config.units), optax.adam(LEARNING_RATE)
    options = f"num_exponents={config.num_exponents}, burn_in={BURN_IN}"
    regulariser = resolve_regulariser(f"flossing({options})")

    def gradient(params: Params, key: jax.Array) -> tuple[Params, jax.Array]:
        inputs = jax.random.bernoulli(key, 0.5, (config.floss_steps, 1, 1)).astype(float)

        def loss(params: Params) -> jax.Array:
            return regulariser(cell, params, inputs, lambda outputs: jnp.zeros(()))

        value, slope = jax.value_and_grad(loss)(params)
        return slope, jnp.sqrt(value)

    def one(params: Params, key: jax.Array) -> tuple[Params, jax.Array]:
        each = jax.random.split(key, config.floss_epochs)
        (params, _), sizes = descend(gradient, adam, Descent.start(adam, params), each)
        return params, sizes

    return jax.vmap(one)(cells, keys)


def keys_of(config: Any, stage: int) -> jax.Array:
    """Gives a key for each network: of its parameters and batches (0), or of a flossing."""
    key = jax.random.fold_in(jax.random.key(config.seed), stage)
    return jax.random.split(key, config.num_seeds)


def before(config: Any) -> xarray.Dataset:
    """Initialises all networks and flosses them; dimensions when, seed, epoch."""
    initial = jax.vmap(net(config.units).init)(keys_of(config, 0))
    flossed, sizes = floss(config, initial, keys_of(config, 1))
    dims = {"W_h": ("unit", "from"), "W_x": ("unit", "input"), "b": ("unit",)}
    both = jax.tree.map(lambda *leaves: np.stack(leaves), initial, flossed)
    found = {name: (("when", "seed", *dims[name]), leaf) for name, leaf in both.items()}
    return xarray.Dataset({**found, "size": (("seed", "epoch"), np.asarray(sizes))})
