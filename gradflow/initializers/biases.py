"""Initialisers of biases, some of which also set the bias of the input gate."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradflow.cell import Key
from gradflow.checks import check_number


@dataclass(frozen=True)
class BiasInitializer:
    """The initialiser of a gate's bias: a function (key, shape, dtype) -> b.

    Attributes:
      sample: (key, shape, dtype) -> b.
      opposite_input: Whether a cell with this initialiser for its forget gate also sets
        b_i = -b_f, unless an initial bias of the input gate is given.
    """

    sample: Callable[[Key, tuple[int], Any], Array]
    opposite_input: bool = False

    def __call__(self, key: Key, shape: tuple[int], dtype: Any) -> Array:
        return self.sample(key, shape, dtype)


def constant(value: float) -> BiasInitializer:
    """Initialises every entry of the bias at the same number.

    Raises:
      TypeError: If the value is not a number.
      ValueError: If it is not finite.
    """
    check_number("a constant bias", value, "finite", example=1.0)
    return BiasInitializer(lambda key, shape, dtype: jnp.full(shape, value, dtype))


def chrono(max_lag: int) -> BiasInitializer:
    """Initialises b_f for memories of 2 to max_lag steps, and b_i = -b_f.

    b_f = log u with u ~ U(1, max_lag - 1). If the other terms of the pre-activation are 0, the
    forget gate is σ(b_f) = u/(u + 1), which is a memory of u + 1 steps, and the input gate is
    1 - σ(b_f), because σ(-b) = 1 - σ(b).

    Args:
      max_lag: The longest memory, in steps.

    Raises:
      ValueError: If max_lag is not above 2.

    Source: Tallec & Ollivier 2018, arXiv:1804.11188, eq. 16.
    """
    check_number("max_lag", max_lag, "finite", example=100)
    if max_lag <= 2:
        raise ValueError(
            f"Expected max_lag above 2 steps, got {max_lag!r}. Set max_lag to, for example, 100."
        )

    def sample(key: Key, shape: tuple[int], dtype: Any) -> Array:
        return jnp.log(jax.random.uniform(key, shape, dtype, 1, float(max_lag) - 1))

    return BiasInitializer(sample, opposite_input=True)
