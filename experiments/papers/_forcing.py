"""RNNs without input that reconstruct a flow, and teacher forcing of their states.

Source: Mikhaeil, Monfared, Durstewitz 2022 and its code (DurstewitzLab/ChaosRNN).
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from gradflow import Carry, Cell, Params, unroll
from gradflow.cells import lstm, rnn


def plrnn(hidden_size: int) -> Cell:
    """The piecewise-linear RNN z_t = A z_{t-1} + W relu(z_{t-1}) + h.

    A is the diagonal of one matrix AW, and W the rest of it. As in the authors' code all entries
    are initialised from U(±1/√M), M the number of units.
    """
    r = hidden_size**-0.5

    def init(key: jax.Array) -> Params:
        k_AW, k_h = jax.random.split(key)
        sample = partial(jax.random.uniform, minval=-r, maxval=r)
        return {"AW": sample(k_AW, (hidden_size, hidden_size)), "h": sample(k_h, (hidden_size,))}

    def step(params: Params, z: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        del x  # it is empty
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
    """Adds teacher forcing to a cell: its input is (h̃, flag), and a flag of 1 sets h = h̃.

    The step then starts from h̃, with the rest of the carry as in the initial carry: the LSTM's c
    is 0.
    """

    def step(params: Params, carry: Carry, x: jax.Array) -> tuple[Carry, jax.Array]:
        start = with_hidden(cell, x[:-1])
        carry = jax.tree.map(lambda new, old: jnp.where(x[-1] > 0, new, old), start, carry)
        return cell.step(params, carry, x[:0])

    return cell._replace(step=step)


def with_hidden(cell: Cell, h: jax.Array) -> Carry:
    """Gives the initial carry with this h."""
    carry = cell.initial_carry()
    return carry._replace(h=h) if hasattr(carry, "_replace") else h


def pseudo_inverse(B: jax.Array) -> jax.Array:
    """Computes B⁺ = Bᵀ (B Bᵀ)⁻¹ of a matrix with independent rows."""
    return B.T @ jnp.linalg.inv(B @ B.T)


def predictions(cell: Cell, params: Params, xs: jax.Array, interval: jax.Array) -> jax.Array:
    """Predicts x̂_1 ... x̂_T from x_0 ... x_{T-1}, (T, batch, 3), forcing every τ-th state."""
    flags = jnp.arange(len(xs)) % interval == 0
    states = xs @ pseudo_inverse(params["B"]).T
    flags = jnp.broadcast_to(flags[:, None, None], (*xs.shape[:2], 1)).astype(xs.dtype)
    inputs = jnp.concatenate([states, flags], axis=-1)
    return unroll(forced(cell), params["cell"], inputs).outputs @ params["B"].T


def squared_error(cell: Cell, params: Params, xs: jax.Array, interval: jax.Array) -> jax.Array:
    """Computes the mean of (x̂_t - x_t)² over t = 1 ... T, of sequences x_0 ... x_T."""
    return jnp.mean((predictions(cell, params, xs[:-1], interval) - xs[1:]) ** 2)
