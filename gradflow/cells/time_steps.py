"""The time step Δ of a state-space model: the range of its initial values, and their sampling."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Key
from gradflow.checks import check_number


def check_time_steps(dt_min: float, dt_max: float) -> None:
    """Checks the range of the initial time steps.

    Raises:
      TypeError: If one is not a number.
      ValueError: Unless 0 < dt_min ≤ dt_max.
    """
    check_number("dt_min", dt_min, "positive", example=0.001)
    check_number("dt_max", dt_max, "positive", example=0.1)
    if dt_min > dt_max:
        raise ValueError(f"Expected dt_min <= dt_max, got {dt_min!r} and {dt_max!r}. Swap them.")


def init_log_dt(key: Key, size: int, dt_min: float, dt_max: float) -> Float[Array, " size"]:
    """Samples log Δ uniformly between log dt_min and log dt_max."""
    return jax.random.uniform(key, (size,), minval=math.log(dt_min), maxval=math.log(dt_max))


def init_dt_bias(key: Key, size: int, dt_min: float, dt_max: float) -> Float[Array, " size"]:
    """Samples b for which Δ = softplus(b) is log-uniform between dt_min and dt_max."""
    dt = jnp.exp(init_log_dt(key, size, dt_min, dt_max))
    # log(exp(Δ) - 1), without an overflow for large Δ and with all digits for small Δ.
    return dt + jnp.log(-jnp.expm1(-dt))
