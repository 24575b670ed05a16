"""Chaotic flows, sampled at even times, by the classical Runge–Kutta method."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Key

Slope = Callable[[Float[Array, "*state"], float], Float[Array, "*state"]]
"""(state, how far into the step, 0 to 1) -> its derivative in time."""


def runge_kutta(slope: Slope, state: Float[Array, "*state"], dt: float) -> Float[Array, "*state"]:
    """One step of the classical Runge–Kutta method, of fourth order."""
    a = slope(state, 0.0)
    b = slope(state + dt / 2 * a, 0.5)
    c = slope(state + dt / 2 * b, 0.5)
    d = slope(state + dt * c, 1.0)
    return state + dt / 6 * (a + 2 * b + 2 * c + d)


def lorenz_slope(state: Float[Array, "*batch 3"], time: float = 0.0) -> Float[Array, "*batch 3"]:
    """The Lorenz equations with σ = 10, ρ = 28, β = 8/3."""
    del time  # an autonomous flow
    x, y, z = jnp.moveaxis(state, -1, 0)
    return jnp.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z], axis=-1)


def lorenz_series(key: Key, num_samples: int, batch_size: int) -> Float[Array, "samples batch 3"]:
    """Lorenz trajectories on the attractor, a sample every 0.1, integrated by steps of 0.01.

    They start near (0, 0, 25), one standard deviation away, and 20 time units come first.
    """
    start = jax.random.normal(key, (batch_size, 3)) + jnp.array([0, 0, 25])

    def sample(state: Array, _: None) -> tuple[Array, Array]:
        state = jax.lax.fori_loop(0, 10, lambda _, s: runge_kutta(lorenz_slope, s, 0.01), state)
        return state, state

    return jax.lax.scan(sample, start, None, length=200 + num_samples)[1][200:]


def mackey_glass_slope(x: Float[Array, "*batch"], past: Float[Array, "*batch"]) -> Array:
    """The Mackey–Glass equation with β = 0.2, γ = 0.1, n = 10; ``past`` is x(t - τ)."""
    return 0.2 * past / (1 + past**10) - 0.1 * x


def mackey_glass_series(
    key: Key, num_samples: int, batch_size: int
) -> Float[Array, "samples batch 1"]:
    """Mackey–Glass series on the attractor for τ = 17, a sample every 1, by steps of 0.1.

    The past x(t - τ) is linear between two steps. Each series starts from a sine of random size,
    period and phase on [-τ, 0], and 300 to 400 time units come first, as many as fall: the
    chaos is weak, and after 300 units for all the series would still be partly in step.
    """
    k_history, k_wait = jax.random.split(key)
    history = mackey_glass_history(k_history, batch_size)
    wait = jax.random.randint(k_wait, (batch_size,), 0, 100)

    def sample(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        state = jax.lax.fori_loop(0, 10, lambda _, s: _advance(*s), state)
        return state, _latest(*state)

    state = history, jnp.zeros((), int)
    _, series = jax.lax.scan(sample, state, None, length=400 + num_samples)
    rows = 300 + wait + jnp.arange(num_samples)[:, None]
    return jnp.take_along_axis(series, rows, axis=0)[..., None]


def mackey_glass_history(key: Key, batch_size: int) -> Float[Array, "171 batch"]:
    """x on [-17, 0] by steps of 0.1: 0.9 + a sin(2π (t / p + u)), a to 0.5, p from 30 to 70."""
    a, p, u = jax.random.uniform(key, (3, batch_size))
    times = jnp.arange(-170, 1)[:, None] / 10
    return 0.9 + 0.5 * a * jnp.sin(2 * math.pi * (times / (30 + 40 * p) + u))


def _advance(ring: Array, oldest: Array) -> tuple[Array, Array]:
    """One step of 0.1. The ring holds x(t - τ) ... x(t), from the oldest on, around its end."""
    size = len(ring)
    past, after = ring[oldest], ring[(oldest + 1) % size]

    def slope(x: Array, time: float) -> Array:
        return mackey_glass_slope(x, (1 - time) * past + time * after)

    x = runge_kutta(slope, _latest(ring, oldest), 0.1)
    return ring.at[oldest].set(x), (oldest + 1) % size


def _latest(ring: Array, oldest: Array) -> Float[Array, " batch"]:
    return ring[(oldest - 1) % len(ring)]
