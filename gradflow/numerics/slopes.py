"""Derivatives of saturating functions in a form that does not round to zero.

JAX differentiates tanh as (1 + tanh x)(1 - tanh x) and the logistic function as s (1 - s). Where
the function is rounded to its limit, the difference is exactly 0: in float64 from |x| = 19 and
x = 37 on, in float32 from 9 and 17. In exponentials no such difference is taken.
"""

import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Pointwise = Callable[[Float[Array, "*n"]], Float[Array, "*n"]]
"""A function of one number, applied to each entry of an array."""


def with_slope(function: Pointwise, slope: Pointwise) -> Pointwise:
    """Returns the function with another derivative, which can itself be differentiated."""

    @jax.custom_jvp
    def exact(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
        return function(x)

    @exact.defjvp
    def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
        # Without the barrier XLA computes the exponentials again for each of the rows that are
        # pulled through a step: log_norms of an LSTM of 256 units took four times as long.
        factor = jax.lax.optimization_barrier(slope(*primals))
        return exact(*primals), factor * tangents[0]

    return exact


def above_zero(slope: Float[Array, "*n"], x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Replaces a slope below the smallest normal number by that number, at a finite x.

    The hardware would flush it to 0, which would report a path as cut that is not.
    """
    tiny = jnp.finfo(slope.dtype).tiny
    return jnp.where(jnp.isfinite(x), jnp.maximum(slope, tiny), slope)


def _bell(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """s(x) s(-x) = e / (1 + e)² with e = exp(-|x|)."""
    e = jnp.exp(-jnp.abs(x))
    return above_zero(e / (1 + e) ** 2, x)


def logistic_slope(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Computes the derivative of the logistic function: s(x) s(-x)."""
    return _logistic_slope(x)


def tanh_slope(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Computes the derivative of tanh: sech² x = 4 s(2x) s(-2x)."""
    return 4 * _logistic_slope(2 * x)


# d/dx s(x) s(-x) = -tanh(x/2) s(x) s(-x), in which again nothing is rounded to zero.
_logistic_slope = with_slope(_bell, lambda x: -tanh(x / 2) * _logistic_slope(x))

tanh = with_slope(jnp.tanh, tanh_slope)
"""tanh with the derivative `tanh_slope`."""

logistic = with_slope(jax.nn.sigmoid, logistic_slope)
"""The logistic function with the derivative `logistic_slope`."""

expm1_slope = with_slope(lambda x: above_zero(jnp.exp(x), x), lambda x: expm1_slope(x))
"""The derivative of exp(x) - 1, which is e^x. (JAX adds 1 to the value.)"""

erf_slope = with_slope(
    lambda x: above_zero(2 / math.sqrt(math.pi) * jnp.exp(-(x**2)), x),
    lambda x: -2 * x * erf_slope(x),
)
"""The derivative of erf, as JAX has it; but JAX's is 0 where it is below the normal numbers."""

SLOPES: Mapping[str, Pointwise] = {
    "tanh": tanh_slope,
    "logistic": logistic_slope,
    "expm1": expm1_slope,
    "erf": erf_slope,
    "erfc": lambda x: -erf_slope(x),
}
"""The exact derivatives by the name of the primitive whose own is 0 in its tails."""

COMPLEMENTS: Mapping[tuple[str, str], Pointwise] = {
    ("sub", "logistic"): lambda x: logistic(-x),
    ("sub", "tanh"): lambda x: 2 * logistic(-2 * x),
    ("add", "tanh"): lambda x: 2 * logistic(2 * x),
    ("add", "expm1"): jnp.exp,
}
"""1 - f(x) or 1 + f(x) by the names of both primitives, of full precision where f(x) is near ±1."""
