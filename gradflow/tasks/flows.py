"""Trajectories of chaotic flows at equidistant times, by the classical Runge–Kutta method."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Key

Slope = Callable[[Float[Array, "*state"], float], Float[Array, "*state"]]
"""(state, time within the step, from 0 to 1) -> derivative of the state."""


def runge_kutta(slope: Slope, state: Float[Array, "*state"], dt: float) -> Float[Array, "*state"]:
    """Computes one step of the classical Runge–Kutta method of fourth order."""
    a = slope(state, 0.0)
    b = slope(state + dt / 2 * a, 0.5)
    c = slope(state + dt / 2 * b, 0.5)
    d = slope(state + dt * c, 1.0)
    return state + dt / 6 * (a + 2 * b + 2 * c + d)


def lorenz_slope(state: Float[Array, "*batch 3"], time: float = 0.0) -> Float[Array, "*batch 3"]:
    """Computes the right-hand side of the Lorenz equations with σ = 10, ρ = 28, β = 8/3."""
    del time  # an autonomous flow
    x, y, z = jnp.moveaxis(state, -1, 0)
    return jnp.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z], axis=-1)


def lorenz_series(key: Key, num_samples: int, batch_size: int) -> Float[Array, "samples batch 3"]:
    """Computes Lorenz trajectories on the attractor: a sample every 0.1, steps of 0.01.

    Initial states are N((0, 0, 25), I). The first 20 time units are discarded, so that the
    trajectories are on the attractor.
    """
    start = jax.random.normal(key, (batch_size, 3)) + jnp.array([0, 0, 25])

    def sample(state: Array, _: None) -> tuple[Array, Array]:
        state = jax.lax.fori_loop(0, 10, lambda _, s: runge_kutta(lorenz_slope, s, 0.01), state)
        return state, state

    return jax.lax.scan(sample, start, None, length=200 + num_samples)[1][200:]


def mackey_glass_slope(x: Float[Array, "*batch"], past: Float[Array, "*batch"]) -> Array:
    """Computes the right-hand side of Mackey–Glass: β = 0.2, γ = 0.1, n = 10, past = x(t - τ)."""
    return 0.2 * past / (1 + past**10) - 0.1 * x


def mackey_glass_series(
    key: Key, num_samples: int, batch_size: int
) -> Float[Array, "samples batch 1"]:
    """Computes Mackey–Glass series on the attractor for τ = 17: a sample every 1, steps of 0.1.

    x(t - τ) is interpolated linearly between steps. The history on [-τ, 0] of each series is a
    sine of random amplitude, period and phase. The first 300 to 400 time units are discarded. The
    number is random for each series, because the chaos is weak: after a fixed number of units the
    series would still be partly synchronised.
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
    """Samples x on [-17, 0] in steps of 0.1: 0.9 + a sin(2π (t/p + u)).

    The amplitude a is uniform on [0, 0.5], the period p on [30, 70], the phase u on [0, 1].
    """
    a, p, u = jax.random.uniform(key, (3, batch_size))
    times = jnp.arange(-170, 1)[:, None] / 10
    return 0.9 + 0.5 * a * jnp.sin(2 * math.pi * (times / (30 + 40 * p) + u))


def _advance(ring: Array, oldest: Array) -> tuple[Array, Array]:
    """Computes one step of 0.1. The ring buffer holds x(t - τ) ... x(t), starting at `oldest`."""
    size = len(ring)
    past, next_past = ring[oldest], ring[(oldest + 1) % size]

    def slope(x: Array, time: float) -> Array:
        return mackey_glass_slope(x, (1 - time) * past + time * next_past)

    x = runge_kutta(slope, _latest(ring, oldest), 0.1)
    return ring.at[oldest].set(x), (oldest + 1) % size


def _latest(ring: Array, oldest: Array) -> Float[Array, " batch"]:
    return ring[(oldest - 1) % len(ring)]
