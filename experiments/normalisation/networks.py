"""The networks of the study, with normalisation, with noise, and over a whole batch."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradflow import Cell, Params
from gradflow.cells import gru, gru_layer_norm, lstm, lstm_layer_norm, rnn
from gradflow.cells.layer_norm import normalise
from gradflow.cells.stack import stack
from gradflow.initializers.meanfield import gaussian_mean

EPS = 1e-5
"""Keeps the statistics of a batch or a layer finite."""


def normalised_input(cell: Cell) -> Cell:
    """Normalises the input of a cell over its entries."""

    def step(params: Params, carry: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        return cell.step(params, carry, normalise(x, EPS))

    return cell._replace(step=step)


def dropped(cell: Cell) -> Cell:
    """Gives an LSTM dropout of h: parameters {"cell", "rate"}, input x and a number u per unit.

    W_h h becomes W_h (m ∘ h) with m = [u ≥ rate]/(1 - rate), as in
    `gradflow.cells.dropout.with_dropout`; the inputs decide which masks repeat.
    """

    def step(params: Params, carry: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        x, u = jnp.split(x, [x.size - carry.h.size])
        kept = (u >= params["rate"]) / (1 - params["rate"])
        return cell.step(params["cell"], carry._replace(h=kept * carry.h), x)

    return cell._replace(step=step)


def zoned(cell: Cell) -> Cell:
    """Gives an LSTM zoneout: parameters {"cell", "rate"}, input x and numbers u for h and for c.

    An entry of the carry with u < rate keeps its value, as in `gradflow.cells.dropout.zoneout`.
    """

    def step(params: Params, carry: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        size = carry.h.size
        x, *us = jnp.split(x, [x.size - 2 * size, x.size - size])
        new, _ = cell.step(params["cell"], carry, x)
        kept = [u < params["rate"] for u in us]
        carry = type(carry)(*map(jnp.where, kept, carry, new))
        return carry, carry.h

    return cell._replace(step=step)


def batch_normalised(input_size: int, hidden_size: int, batch_size: int) -> Cell:
    """Makes the tanh network of a whole batch, normalised over it; γ and γ_x are parameters.

    Its carry is H, of shape (batch, hidden), and its input X as one vector.
    """

    def step(params: Params, H: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        by_h = normalise(H @ params["W_h"].T, EPS, axis=0)
        by_x = normalise(x.reshape(batch_size, -1) @ params["W_x"].T, EPS, axis=0)
        H = jnp.tanh(params["gamma"] * by_h + params["gamma_x"] * by_x + params["b"])
        return H, H.ravel()

    init = rnn(input_size, hidden_size).init
    return Cell(init, step, initial_carry=lambda: jnp.zeros((batch_size, hidden_size)))


def batch_theory(gamma: float, gamma_x: float) -> float:
    """Computes the mean-field log growth per step of the gradient under batch normalisation."""
    std = math.hypot(gamma, gamma_x)
    square = gaussian_mean(lambda z: np.tanh(std * z) ** 2)
    slopes = gaussian_mean(lambda z: (1 - np.tanh(std * z) ** 2) ** 2)
    return math.log(gamma) + 0.5 * math.log(slopes / square)


def networks(input_size: int, hidden_size: int) -> dict[str, Cell]:
    """Gives the cells with and without layer normalisation, by name."""
    sizes, above = (input_size, hidden_size), (hidden_size, hidden_size)
    return {
        "lstm": lstm(*sizes),
        "lstm_layer_norm": lstm_layer_norm(*sizes),
        "gru": gru(*sizes),
        "gru_layer_norm": gru_layer_norm(*sizes),
        "stack": stack([lstm(*sizes), lstm(*above)]),
        "stack_between": stack([lstm(*sizes), normalised_input(lstm(*above))]),
        "stack_within": stack([lstm_layer_norm(*sizes), lstm_layer_norm(*above)]),
    }
