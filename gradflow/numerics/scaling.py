"""Numbers far outside the range of floats: a value with entries near 1 and a power of two."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree


class Scaled(NamedTuple):
    """2^exponent · value, for a pytree of arrays.

    The scale is an integer power of two. Multiplying by it rounds nothing, so that a product of a
    million factors loses no digit by rescaling, and its logarithm is one exact product.
    """

    value: PyTree[Float[Array, "..."]]
    exponent: Int[Array, "*n"]

    def log_scale(self) -> Float[Array, "*n"]:
        """Returns the natural logarithm of 2^exponent."""
        return log_power(self.exponent, jnp.result_type(*jax.tree.leaves(self.value)))


def scaled(value: PyTree) -> Scaled:
    """Returns a value as it is, with the scale 2^0."""
    return Scaled(value, jnp.zeros((), jnp.int32))


def rescale(value: PyTree, exponent: Int[Array, ""] | int = 0) -> Scaled:
    """Brings 2^exponent · value to a largest entry between 1/2 and 1, without any rounding."""
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(value)]))
    # frexp of NaN or infinity is undefined: such a value is left as it is. The scale is no part of
    # the function that is differentiated.
    largest = jax.lax.stop_gradient(jnp.where(jnp.isfinite(largest), largest, 1))
    _, shift = jnp.frexp(largest)
    factor = jnp.ldexp(jnp.ones((), largest.dtype), -shift)
    return Scaled(jax.tree.map(lambda leaf: leaf * factor, value), exponent + shift)


def with_room(value: PyTree) -> tuple[PyTree, int]:
    """Returns 2^shift · value, and shift, for entries near 1 that are to go through a step.

    Where the step is a product of small factors, such as 1e-155 · 1e-155, the product with an entry
    near 1 is below the normal numbers and the hardware flushes it to 0. An entry near 2^341 in
    float64, or 2^42 in float32, leaves room for it.
    """
    shift = room(value)
    return jax.tree.map(lambda leaf: leaf * 2.0**shift, value), shift


def log_power(exponent: Int[Array, "*n"], dtype: jnp.dtype) -> Float[Array, "*n"]:
    """Computes log 2^exponent in a float type (an integer times a float is float64 under x64)."""
    return exponent.astype(dtype) * math.log(2)


def room(value: PyTree) -> int:
    """Returns the shift of `with_room`."""
    return int(jnp.finfo(jnp.result_type(*jax.tree.leaves(value))).maxexp) // 3


def log_scaled(value: Float[Array, "*n"], exponent: Int[Array, "*#n"]) -> Float[Array, "*n"]:
    """Computes log(2^exponent · value); -inf for an exact zero."""
    return jnp.log(value) + log_power(exponent, value.dtype)


def log_norm(array: Float[Array, "..."], order: int | None = None) -> Float[Array, ""]:
    """Computes log ‖array‖ without squares that underflow.

    The norm is the root of the sum of squares, or with order 2 that of a matrix, the spectral.
    """
    largest = jnp.max(jnp.abs(array))
    scale = jnp.where(largest > 0, largest, 1)
    return jnp.log(scale * jnp.linalg.norm(array / scale, ord=order))
