"""Comparison of a cell with an independent NumPy reference, in values and step Jacobians."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from gradflow.cell import Cell

Reference = Callable[..., object]
"""(params, carry, x) -> carry, all in NumPy: written from the paper, not from the cell."""


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def complex_step_jacobian(function: Callable[[np.ndarray], np.ndarray], point: np.ndarray):
    """∂function/∂point to rounding error, column by column, from Im f(x + ih e_j)/h.

    The function must be analytic where it is called: no abs, maximum or comparison of values.
    Source: Squire & Trapp 1998, doi:10.1137/S003614459631241X.
    """
    h = 1e-30
    steps = point + 1j * h * np.eye(point.size)
    return np.stack([function(step).imag / h for step in steps], axis=-1)


def random_state(cell: Cell, input_size: int, seed: int = 0):
    """Parameters (biases too), a carry and an input away from every special point."""
    noise = np.random.default_rng(seed).normal  # one program per shape would be compiled for JAX's
    jitter = lambda leaf: leaf + jnp.asarray(0.5 * noise(size=leaf.shape), leaf.dtype)  # noqa: E731
    params = jax.tree.map(jitter, cell.init(jax.random.key(seed)))
    return params, jax.tree.map(jitter, cell.initial_carry()), jitter(jnp.zeros(input_size))


def jit(function: Callable) -> Callable:
    """For what runs once: one program, compiled without any optimisation."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def assert_step_matches(cell: Cell, reference: Reference, input_size: int, seed: int = 0) -> None:
    """Holds s_t, ∂s_t/∂s_{t-1} and ∂s_t/∂x_t against those of the reference, to rounding."""
    params, carry, x = random_state(cell, input_size, seed)
    flat, unravel = ravel_pytree(carry)
    numpy_params = jax.tree.map(np.asarray, params)
    leaves, structure = jax.tree.flatten(carry)
    cuts = np.cumsum([leaf.size for leaf in leaves])[:-1]

    def rebuild(vector):
        parts = np.split(vector, cuts)
        return structure.unflatten(
            [p.reshape(leaf.shape) for p, leaf in zip(parts, leaves, strict=True)]
        )

    def reference_flat(both):
        new = reference(numpy_params, rebuild(both[: flat.size]), both[flat.size :])
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(new)])

    def step_flat(both):
        return ravel_pytree(cell.step(params, unravel(both[: flat.size]), both[flat.size :])[0])[0]

    def values_and_jacobian(both):
        return step_flat(both), jax.jacobian(step_flat)(both)

    both = jnp.concatenate([flat, x])
    values, jacobian = jit(values_and_jacobian)(both)
    np.testing.assert_allclose(values, reference_flat(np.asarray(both)), rtol=1e-12)
    expected = complex_step_jacobian(reference_flat, np.asarray(both))
    np.testing.assert_allclose(jacobian, expected, rtol=1e-10, atol=1e-13)
