"""Gains by lag: factors of a product's singular values, by which a search loses the largest.

Each returns an array (T, n): row l - 1 holds the factors at lag l, in a basis of the caller's. How
small a direction may become before it leads is limited as `adversaries` says.
"""

import numpy as np

Rng = np.random.Generator


def power(rng: Rng, low: float, high: float) -> float:
    """10^u with u uniform between low and high."""
    return 10 ** rng.uniform(low, high)


def late(rng: Rng, num_steps: int, size: int) -> np.ndarray:
    """A direction that is small from lag 1 on grows later, far from those that led so far."""
    leading = rng.integers(1, min(9, size - 1))
    gains = np.full((num_steps, size), rng.uniform(0.95, 1))
    gains[:, :leading] = 1
    gains[0, leading:] = power(rng, -5, -1)
    begin = rng.integers(num_steps // 4, num_steps * 2 // 5)
    gains[begin:, rng.integers(leading, size)] = rng.uniform(1.7, 3)
    return gains


def swap(rng: Rng, num_steps: int, size: int) -> np.ndarray:
    """Two halves with gains 1 and b change places again and again."""
    small = 1 - power(rng, -3, -0.3)
    period = rng.integers(2, max(3, min(num_steps / 3, -9 / np.log(small))))
    first = np.arange(size) < size // 2
    turn = np.arange(num_steps)[:, None] // period % 2 == 0
    jitter = power(rng, -13, -2) * rng.normal(size=(num_steps, size))
    return np.where(turn == first, 1, small) * (1 + jitter)


def walk(rng: Rng, num_steps: int, size: int) -> np.ndarray:
    """The log singular values of the product go on random walks."""
    spread = rng.uniform(0.05, 0.8) / np.sqrt(num_steps / 32)
    return np.exp(spread * rng.normal(size=(num_steps, size)))


def drift(rng: Rng, num_steps: int, size: int) -> np.ndarray:
    """The log gains themselves go on random walks."""
    spread = rng.uniform(1, 6) / num_steps**1.5
    return np.exp(spread * np.cumsum(rng.normal(size=(num_steps, size)), axis=0))


def near_degenerate(rng: Rng, num_steps: int, size: int) -> np.ndarray:
    """The leading values lie 1e-12 to 1e-3 apart, in another order at each lag."""
    values = np.full((num_steps, size), rng.uniform(0.5, 1))
    count = rng.integers(2, size + 1)
    values[:, :count] = 1 - power(rng, -12, -3) * rng.random((num_steps, count))
    return gains_of(values)


def hopping(rng: Rng, num_steps: int, size: int) -> np.ndarray:
    """At each lag another direction leads, which was nowhere near the top before."""
    values = rng.uniform(0.3, 0.6, size) * np.ones((num_steps, 1))
    values[np.arange(num_steps), rng.integers(size, size=num_steps)] = rng.uniform(0.61, 1)
    return gains_of(values)


def one_takes_over(rng: Rng, num_steps: int, size: int) -> np.ndarray:
    """Some directions lead by far for long; then another passes them slowly.

    The squares of the rest sum up to less than the leading one's, or to a little more.
    """
    leading = rng.integers(1, 13)
    values = np.full((num_steps, size), rng.uniform(0.1, 1.1) / np.sqrt(size - leading))
    values[:, :leading] = 1 + power(rng, -12, -2) * rng.normal(size=leading)
    begin, slope = rng.integers(4, num_steps // 2), power(rng, -2, 0)
    values[begin:, rng.integers(leading, size)] = 1 + slope * (0.01 + np.arange(num_steps - begin))
    return gains_of(values)


def equal(rng: Rng, num_steps: int, size: int) -> np.ndarray:
    """All singular values stay equal."""
    return np.ones((num_steps, size)) * rng.uniform(0.5, 2)


def gains_of(values: np.ndarray) -> np.ndarray:
    """The gains after which the singular values of the product are the given ones."""
    return values / np.concatenate([np.ones_like(values[:1]), values[:-1]])


GAINS = (late, swap, walk, drift, near_degenerate, hopping, one_takes_over, equal)
