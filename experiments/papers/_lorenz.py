"""The Lorenz flow, its Lyapunov exponents, and two distances between orbits.

Source of the distances: Mikhaeil, Monfared, Durstewitz 2022 and its code (DurstewitzLab/ChaosRNN).
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradflow import Cell, Params, flow, unroll
from gradflow.tasks.flows import lorenz_slope, runge_kutta

DT, SUBSTEPS = 0.025, 5
NUM_BINS, SPREAD, SMOOTHING = 10, 2.0, 1e-5
WINDOW, SIGMA = 500, 2


def lorenz_cell() -> Cell:
    """The flow as a cell: one step is one sampling interval, by Runge-Kutta steps."""

    def step(params: Params, s: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        del params, x  # the flow has neither
        dt = DT / SUBSTEPS
        s = jax.lax.fori_loop(0, SUBSTEPS, lambda _, s: runge_kutta(lorenz_slope, s, dt), s)
        return s, s

    return Cell(lambda key: {}, step, initial_carry=lambda: jnp.array([1.0, 1.0, 25.0]))


def orbit(num_samples: int) -> np.ndarray:
    """Samples the flow on its attractor, after 50 time units."""
    free = jnp.zeros((2000 + num_samples, 0))
    return np.asarray(jax.jit(lambda x: unroll(lorenz_cell(), {}, x).outputs)(free))[2000:]


class Measured(NamedTuple):
    """The exponents of the flow per time unit, and the largest one by the growth of a distance."""

    exponents: np.ndarray
    by_pair: float


def exponents(num_steps: int) -> Measured:
    """Computes the exponents by QR, and the largest by the distance of two orbits, in NumPy."""
    find = jax.jit(partial(flow.lyapunov_exponents, lorenz_cell(), {}, burn_in=num_steps // 10))
    found = find(jnp.zeros((num_steps, 0))).exponents / DT
    pair = np.array([[1.0, 1.0, 25.0], [1.0, 1.0, 25.0 + 1e-7]])
    total, start = 0.0, num_steps // 10
    for t in range(num_steps):
        for _ in range(SUBSTEPS):
            pair = numpy_step(pair, DT / SUBSTEPS)
        size = np.linalg.norm(pair[1] - pair[0])
        total += np.log(size / 1e-7) if t >= start else 0.0
        pair[1] = pair[0] + (pair[1] - pair[0]) * 1e-7 / size
    return Measured(np.asarray(found), float(total / (num_steps - start) / DT))


def numpy_step(s: np.ndarray, dt: float) -> np.ndarray:
    """Makes one Runge-Kutta step in NumPy, (points, 3)."""

    def slope(s: np.ndarray) -> np.ndarray:
        x, y, z = s.T
        return np.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 * z / 3], axis=1)

    a = slope(s)
    b = slope(s + dt / 2 * a)
    c = slope(s + dt / 2 * b)
    return s + dt / 6 * (a + 2 * b + 2 * c + slope(s + dt * c))


def histogram(series: np.ndarray) -> np.ndarray:
    """Computes the smoothed histogram on a grid over ±2 standard deviations, as one vector.

    The last bin counts the points that are outside of the grid or not finite.
    """
    edges = np.linspace(-SPREAD, SPREAD, NUM_BINS + 1)
    finite = series[np.isfinite(series).all(axis=1)]
    inside = np.histogramdd(finite, bins=[edges] * series.shape[1])[0].ravel()
    counts = np.append(inside, len(series) - inside.sum()) + SMOOTHING
    return counts / counts.sum()


def state_space_distance(made: np.ndarray, data: np.ndarray) -> float:
    """Computes D_stsp = Σ p log p/q in nats; p and q are histograms of ``data`` and ``made``."""
    p, q = histogram(data), histogram(made)
    return float(np.sum(p * np.log(p / q)))


def spectrum(series: np.ndarray, window: int) -> np.ndarray:
    """Computes the smoothed power spectrum of one coordinate, a mean over windows with sum 1."""
    parts = series[: len(series) // window * window].reshape(-1, window)
    parts = parts - parts.mean(axis=1, keepdims=True)
    power = np.mean(np.abs(np.fft.rfft(parts, axis=1)) ** 2, axis=0)
    places = np.arange(-4 * SIGMA, 4 * SIGMA + 1)
    kernel = np.exp(-((places / SIGMA) ** 2) / 2)
    smooth = np.convolve(power, kernel / kernel.sum(), mode="same")
    return smooth / smooth.sum()


def hellinger(p: np.ndarray, q: np.ndarray) -> float:
    """Computes the Hellinger distance √(1 - Σ √(p q)) of two distributions."""
    return float(np.sqrt(max(0.0, 1 - np.sum(np.sqrt(p * q)))))


def spectral_distance(made: np.ndarray, data: np.ndarray) -> float:
    """Computes D_H, the mean over coordinates; 1 if ``made`` is not finite or is constant."""
    if not np.isfinite(made).all() or np.any(np.ptp(made, axis=0) < 1e-6):
        return 1.0
    window = min(WINDOW, len(made), len(data))
    pairs = zip(made.T, data.T, strict=True)
    return float(np.mean([hellinger(spectrum(a, window), spectrum(b, window)) for a, b in pairs]))
