"""Random initialisers of biases: functions (key, shape, dtype) -> b."""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradflow.cell import Key

BiasInitializer: TypeAlias = Callable[[Key, tuple[int], Any], Array]


def chrono(max_lag: int) -> BiasInitializer:
    """Initialises biases of forget gates for memories of 2 to max_lag steps.

    b = log u with u ~ U(1, max_lag - 1). If the other terms of the pre-activation are 0, the gate
    is σ(b) = u/(u + 1), which is a memory of u + 1 steps.

    Args:
      max_lag: The longest memory, in steps.

    Raises:
      ValueError: If max_lag is not above 2.

    Source: Tallec & Ollivier 2018, arXiv:1804.11188, eq. 16.
    """
    if not (math.isfinite(max_lag) and max_lag > 2):
        raise ValueError(
            f"Expected max_lag above 2 steps, got {max_lag!r}. Set max_lag to, for example, 100."
        )
    return lambda key, shape, dtype: jnp.log(
        jax.random.uniform(key, shape, dtype, 1, float(max_lag) - 1)
    )
