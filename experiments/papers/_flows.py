"""Nine chaotic flows in three dimensions by Euler steps, and an observer of each.

Source: Gonzalez et al. 2025, arXiv:2508.16817, Table 1, and its code, experiments/tab1.py.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradflow import Cell, Params

DT = 0.01
"""The Euler step, in the flow's units of time."""


class Flow(NamedTuple):
    """A flow: its derivative, its start, and the indices of the coordinates an observer reads."""

    slope: Callable[..., tuple]
    start: tuple[float, float, float]
    observed: tuple[int, ...]


def chua_slope(x: jax.Array, y: jax.Array, z: jax.Array) -> tuple:
    """Chua's circuit, with a piecewise linear resistor."""
    bend = -0.71429 * x + 0.5 * (-1.142857 + 0.71429) * (jnp.abs(x + 1) - jnp.abs(x - 1))
    return 15.6 * (y - x - bend), x - y + z, -28.0 * y


def abc_slope(x: jax.Array, y: jax.Array, z: jax.Array) -> tuple:
    """The Arnold-Beltrami-Childress flow, with A, B, C = √3, √2, 1 to six digits."""
    A, B = 1.73205, 1.41421
    sin, cos = jnp.sin, jnp.cos
    return A * sin(z) + cos(y), B * sin(x) + A * cos(z), sin(y) + B * cos(x)


def thomas_slope(x: jax.Array, y: jax.Array, z: jax.Array) -> tuple:
    """Thomas's cyclically symmetric flow."""
    return tuple(-1.85 * a + 10 * jnp.sin(b) for a, b in ((x, y), (y, z), (z, x)))


def strizhak_slope(x: jax.Array, y: jax.Array, z: jax.Array) -> tuple:
    """The Kawczynski-Strizhak flow, with β, γ, κ, μ = -0.4, 0.49, 0.2, 2.1."""
    return 0.49 * (y - x**3 + 6.3 * x), -4.2 * x - y - z - 0.4, 0.2 * (x - z)


FLOWS: dict[str, Flow] = {
    "Rossler": Flow(
        lambda x, y, z: (-y - z, x + 0.2 * y, 0.2 + z * (x - 5.7)),
        (6.5134412, 0.4772013, 0.34164294),
        (),
    ),
    "Lorenz": Flow(
        lambda x, y, z: (10 * (y - x), 28 * x - x * z - y, x * y - 8 / 3 * z),
        (-9.7869288, -15.03852, 20.533978),
        (1,),
    ),
    "Thomas": Flow(thomas_slope, (2.199442, 2.3634225, 3.220197), (1,)),
    "ABC": Flow(abc_slope, (-0.78450179, -0.62887672, -0.17620268), (0, 2)),
    "Sprott B": Flow(
        lambda x, y, z: (y * z, x - y, 1 - x * y), (1.6878282, 1.4848132, -0.53706628), (1,)
    ),
    "Kawczynski-Strizhak": Flow(strizhak_slope, (-1.160501, 5.8636902, -1.2031947), (0, 1)),
    "Vallis": Flow(
        lambda x, y, z: (102 * y - 3 * x, x * z - y, 1 - z - x * y),
        (-6.99286331487343, 0.023254276622294345, -0.1658177563067799),
        (1,),
    ),
    "Chua": Flow(chua_slope, (1.1262351, -0.11386474, -0.78324421), (1,)),
    "Nose-Hoover": Flow(
        lambda x, y, z: (y, -x + y * z, 1.5 - y**2), (-1.9758582, 0.24647527, 0.79024299), (0, 2)
    ),
}
"""In the order of the authors' code, which determines the observers' starts."""


@cache
def flow_cell(name: str, dt: float = DT) -> Cell:
    """One Euler step of a flow; the input is ignored."""

    def step(params: Params, s: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        s = s + dt * jnp.stack(FLOWS[name].slope(*s))
        return s, s

    return Cell(lambda key: {"C": jnp.zeros(3)}, step, lambda: jnp.array(FLOWS[name].start))


@cache
def observer_cell(name: str) -> Cell:
    """One Euler step of the observer, whose input is the state of the flow, used in part."""
    observed = np.isin(np.arange(3), FLOWS[name].observed)

    def step(params: Params, s: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        z = jnp.where(observed, x, s)
        s = z + DT * (jnp.stack(FLOWS[name].slope(*z)) + params["C"] * (params["C"] @ (x - z)))
        return s, s

    return Cell(lambda key: {"C": jax.random.normal(key, (3,))}, step, lambda: jnp.zeros(3))
