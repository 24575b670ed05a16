"""The nets that reconstruct a flow without input, and the forcing that puts them on the data."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from gradflow import Cell, unroll
from gradflow.cells import lstm, rnn

if TYPE_CHECKING:
    from gradflow import Carry, Params


def plrnn(hidden_size: int) -> Cell:
    """The piecewise-linear net z_t = A z_{t-1} + W relu(z_{t-1}) + h, A diagonal and W without.

    A and W are one matrix AW; as in the authors' code all starts at U(±1/√M).
    """
    r = hidden_size**-0.5

    def init(key: jax.Array) -> "Params":
        k_AW, k_h = jax.random.split(key)
        draw = partial(jax.random.uniform, minval=-r, maxval=r)
        return {"AW": draw(k_AW, (hidden_size, hidden_size)), "h": draw(k_h, (hidden_size,))}

    def step(params: "Params", z: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        del x  # it has no entries
        A = jnp.diag(params["AW"])
        z = A * z + (params["AW"] - jnp.diag(A)) @ jax.nn.relu(z) + params["h"]
        return z, z

    return Cell(init, step, initial_carry=lambda: jnp.zeros(hidden_size))


CELLS: dict[str, Callable[[int], Cell]] = {
    "plrnn": plrnn,
    "rnn": lambda hidden_size: rnn(0, hidden_size, recurrent_init="glorot"),
    "lstm": lambda hidden_size: lstm(0, hidden_size, recurrent_init="glorot"),
}


def forced(cell: Cell) -> Cell:
    """The cell whose input is (h̃, flag): where the flag is 1 it starts the step from h = h̃.

    All else of the carry is then as at the start: the LSTM's c is 0.
    """

    def step(params: "Params", carry: "Carry", x: jax.Array) -> tuple["Carry", jax.Array]:
        start = with_hidden(cell, x[:-1])
        carry = jax.tree.map(lambda new, old: jnp.where(x[-1] > 0, new, old), start, carry)
        return cell.step(params, carry, x[:0])

    return cell._replace(step=step)


def with_hidden(cell: Cell, h: jax.Array) -> "Carry":
    """The initial carry with this h."""
    carry = cell.initial_carry()
    return carry._replace(h=h) if hasattr(carry, "_replace") else h


def pseudo_inverse(B: jax.Array) -> jax.Array:
    """B⁺ = Bᵀ (B Bᵀ)⁻¹ of a matrix with independent rows."""
    return B.T @ jnp.linalg.inv(B @ B.T)


def predictions(cell: Cell, params: "Params", xs: jax.Array, interval: jax.Array) -> jax.Array:
    """x̂_1 ... x̂_T from x_0 ... x_{T-1}, (T, batch, 3), of which every τ-th is forced on the net."""
    flags = jnp.arange(len(xs)) % interval == 0
    states = xs @ pseudo_inverse(params["B"]).T
    flags = jnp.broadcast_to(flags[:, None, None], (*xs.shape[:2], 1)).astype(xs.dtype)
    inputs = jnp.concatenate([states, flags], axis=-1)
    return unroll(forced(cell), params["cell"], inputs).outputs @ params["B"].T


def squared_error(cell: Cell, params: "Params", xs: jax.Array, interval: jax.Array) -> jax.Array:
    """The mean of (x̂_t - x_t)², t = 1 ... T, of sequences x_0 ... x_T."""
    return jnp.mean((predictions(cell, params, xs[:-1], interval) - xs[1:]) ** 2)
