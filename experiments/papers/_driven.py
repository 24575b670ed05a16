"""The driven networks of Gonzalez 2025: s_{t+1} = W tanh(s_t) + u_t, without a diagonal in W."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from gradflow import Cell, Params


@cache
def driven(units: int) -> Cell:
    """s_{t+1} = W tanh(s_t) + u_t; one value for each size, so that programs are compiled once."""

    def step(params: Params, s: jax.Array, u: jax.Array) -> tuple[jax.Array, jax.Array]:
        s = params["W_h"] @ jnp.tanh(s) + u
        return s, s

    return Cell(lambda key: {"W_h": jnp.eye(units)}, step, lambda: jnp.zeros(units))


def sample(
    rng: np.random.Generator, units: int, num_steps: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples W √D / g with entries N(0, 1), the sines u of shape (T, D), and s_0 ~ U(-1, 1)."""
    matrix = rng.standard_normal((units, units))
    np.fill_diagonal(matrix, 0)
    ends = (0, 0.2), (0.5, 3), (0, 2 * np.pi)
    size, rate, phase = (rng.uniform(low, high, units) for low, high in ends)
    u = size * np.sin(rate * np.arange(num_steps)[:, None] + phase)
    return matrix, u, rng.uniform(-1, 1, units)
