"""Cells whose step Jacobians are given, and the step Jacobians of any cell: for the tests here."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from oracle import random_state

from gradflow.cell import Cell
from gradflow.unroll import unroll


@functools.cache
def given(size):
    """s_t = X_t s_{t-1}: the input is the step Jacobian, its rows one after the other."""

    def step(params, s, x):
        s = x.reshape(size, size) @ s
        return s, s

    return Cell(init=lambda key: {}, step=step, initial_carry=lambda: jnp.zeros(size))


def as_inputs(matrices):
    """Matrices (T, n, n) as the inputs of `given`."""
    matrices = jnp.asarray(matrices)
    return matrices.reshape(len(matrices), -1)


def step_jacobians(cell, params, inputs, carry=None):
    """J_1 ... J_T on the flattened carry, by autodiff of one step at a time."""
    carries = unroll(cell, params, inputs, carry=carry).carries
    _, unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], carries))
    flat = jax.vmap(lambda s: ravel_pytree(s)[0])(carries)[:-1]

    def step(s, x):
        return ravel_pytree(cell.step(params, unravel(s), x)[0])[0]

    return np.asarray(jax.jit(jax.vmap(jax.jacobian(step)))(flat, inputs))


def problem(cell, num_steps, seed=0):
    """Random parameters, inputs (num_steps, 3) and s_0 of a cell with three inputs."""
    params, carry, _ = random_state(cell, 3, seed)
    return params, jax.random.normal(jax.random.key(seed + 1), (num_steps, 3)), carry


def weighted(outputs):
    """A loss in which every output counts, each with a weight and a curvature of its own."""
    return jnp.sum(jnp.sin(outputs) * jnp.arange(1.0, outputs.size + 1).reshape(outputs.shape))


def random_rotations(num, size, seed=0):
    """Orthogonal matrices (num, size, size)."""
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(num, size, size)))[0]
