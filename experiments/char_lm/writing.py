"""Samples text from a language model, one symbol after the other."""

import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from gradflow.cell import Carry, Cell, Key, Params
from gradflow.train.model import read_out


def write(
    cell: Cell, params: Params, codes: Int[np.ndarray, " n"], key: Key, temperature: float
) -> Iterator[int]:
    """Reads some symbols, and then samples each next one from softmax((W h + b)/temperature).

    Raises:
      ValueError: If there is no symbol to begin from, or the temperature is not positive.
    """
    if not len(codes):
        raise ValueError("Expected at least one symbol to begin from, got none.")
    if not 0 < temperature < math.inf:
        raise ValueError(
            f"Expected a positive temperature, got {temperature}. Use 1 for the trained model."
        )

    dtype = jnp.result_type(*jax.tree.leaves(params))

    @jax.jit
    def step(carry: Carry, code: Array, key: Key) -> tuple[Carry, Array]:
        x = jax.nn.one_hot(code, len(params["readout"]["b"]), dtype=dtype)
        carry, h = cell.step(params["cell"], carry, x)
        return carry, jax.random.categorical(key, read_out(params["readout"], h) / temperature)

    carry = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), cell.initial_carry())
    code = jnp.asarray(codes[0])
    for number in range(2**31 - 1):
        carry, sampled = step(carry, code, jax.random.fold_in(key, number))
        if number + 1 < len(codes):
            code = jnp.asarray(codes[number + 1])
        else:
            yield int(sampled)
            code = sampled
