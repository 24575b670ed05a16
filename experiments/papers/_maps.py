"""Two maps whose Lyapunov exponents have closed forms: a stable cycle and a chaotic tent map.

Source: Mikhaeil, Monfared, Durstewitz 2022, theorems 1 and 2.
"""

import jax
import jax.numpy as jnp
import numpy as np

from gradflow import Cell, Params, flow
from gradflow.cells import rnn

TENT = 1.8
"""The slope of the chaotic map."""

LAGS = 200


def maps() -> list[tuple[Cell, Params, jax.Array]]:
    """Gives a tanh unit on its stable 2-cycle and a chaotic tent map: cell, parameters, state."""
    h = 0.5
    for _ in range(200):
        h = np.tanh(-2 * h)
    s = TENT  # h = (relu(u), relu(u - 1/2)), u <- s relu(u) - 2 s relu(u - 1/2): the tent map
    weights = {
        "cycle": ([[-2.0]], [0.0]),
        "chaos": ([[s, -2 * s], [s, -2 * s]], [0.0, -0.5]),
    }
    cycle, tent = (
        {"W_h": jnp.array(W_h), "W_x": jnp.zeros((len(b), 0)), "b": jnp.array(b)}
        for W_h, b in weights.values()
    )
    return [
        (rnn(0, 1), cycle, jnp.array([h])),
        (rnn(0, 2, activation="relu"), tent, jnp.array([0.3, 0.0])),
    ]


def theorems() -> np.ndarray:
    """Measures log ‖∂h_T/∂h_t‖ of both maps, (map, lag)."""
    free = jnp.zeros((LAGS, 0))
    norms = [flow.log_norms(cell, params, free, carry=carry) for cell, params, carry in maps()]
    return np.stack([np.asarray(norm) for norm in norms])


def rates() -> np.ndarray:
    """Computes both exponents in closed form: log 2 (1 - h²) of the cycle, log s of the tent."""
    h = 0.9
    for _ in range(200):
        h = np.tanh(2 * h)
    return np.log([2 * (1 - h**2), TENT])
