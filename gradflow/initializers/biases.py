"""The laws of biases, and which of them set the bias of the input gate as well."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradflow.cell import Key


@dataclass(frozen=True)
class BiasLaw:
    """How the bias of a gate is initialised: a function (key, shape, dtype) -> b.

    Attributes:
      draw: (key, shape, dtype) -> b.
      opposite_input: Whether a forget gate of this law sets the input gate too, b_i = -b_f. The
        cells do so unless a bias of the input gate is given; any other law sets b_f alone.
    """

    draw: Callable[[Key, tuple[int], Any], Array]
    opposite_input: bool = False

    def __call__(self, key: Key, shape: tuple[int], dtype: Any) -> Array:
        return self.draw(key, shape, dtype)


def constant(value: float) -> BiasLaw:
    """Gives the law by which every entry of the bias is the same number."""
    return BiasLaw(lambda key, shape, dtype: jnp.full(shape, value, dtype))


def chrono(max_lag: int) -> BiasLaw:
    """Gives the chrono law, b_f ~ log U(1, max_lag - 1) and b_i = -b_f.

    With the other terms of its pre-activation at 0, σ(b_f) = u/(u + 1) is a memory of u + 1 steps,
    from 2 to max_lag; and the input gate lets in 1 - σ(b_f), as σ(-b) = 1 - σ(b).

    Raises:
      ValueError: If max_lag is not above 2.

    Source: Tallec & Ollivier 2018, arXiv:1804.11188, eq. 16.
    """
    if not (math.isfinite(max_lag) and max_lag > 2):
        raise ValueError(f"max_lag is expected to be a number of steps above 2, got {max_lag!r}")

    def draw(key: Key, shape: tuple[int], dtype: Any) -> Array:
        return jnp.log(jax.random.uniform(key, shape, dtype, 1, float(max_lag) - 1))

    return BiasLaw(draw, opposite_input=True)
