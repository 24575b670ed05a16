"""The laws of biases: functions (key, shape, dtype) -> b."""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradflow.cell import Key

BiasInitializer: TypeAlias = Callable[[Key, tuple[int], Any], Array]


def chrono(max_lag: int) -> BiasInitializer:
    """b ~ log U(1, max_lag - 1): forget gates that remember for between 2 and max_lag steps.

    With the other terms of its pre-activation at 0, σ(b) = u/(u + 1), a memory of u + 1 steps.

    Raises:
      ValueError: If max_lag is not above 2.

    Source: Tallec & Ollivier 2018, arXiv:1804.11188, eq. 16.
    """
    if not (math.isfinite(max_lag) and max_lag > 2):
        raise ValueError(f"max_lag is expected to be a number of steps above 2, got {max_lag!r}")
    return lambda key, shape, dtype: jnp.log(
        jax.random.uniform(key, shape, dtype, 1, float(max_lag) - 1)
    )
