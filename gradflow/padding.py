"""Padded steps: they copy the carry, and no NaN from the padding reaches a derivative."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gradflow.cell import Carry, Cell, Params


def copying_step(
    cell: Cell,
) -> Callable[[Params, Carry, tuple[Array, Array]], tuple[Carry, Array]]:
    """Makes a step for inputs (x_t, is_real) that copies the carry where is_real is False.

    At a padded step the cell's step is evaluated too, with an input from `fill_padding`, and its
    result is discarded.
    """

    def step(params: Params, carry: Carry, x: tuple[Array, Array]) -> tuple[Carry, Array]:
        value, is_real = x

        def choose(a: Array, b: Array) -> Array:
            return jnp.where(is_real, a, b)

        # Both sides of this first choice have the same value. It cuts the gradient of a discarded
        # step, which is 0 times the step's derivative: NaN where that derivative is infinite.
        constant = jax.tree.map(jax.lax.stop_gradient, carry)
        new, _ = cell.step(params, jax.tree.map(choose, carry, constant), value)
        carry = jax.tree.map(choose, new, carry)
        return carry, cell.hidden(carry)

    return step


def fill_padding(
    inputs: Float[Array, "steps *batch input"], valid: Bool[Array, " steps *batch"]
) -> Float[Array, "steps *batch input"]:
    """Replaces the input at every padded step by the first real input of the same sequence.

    No value in the padding, such as NaN, then reaches a derivative. Zeros would not be safe: the
    derivative of a step may be infinite at zero (that of x / ‖x‖ is), and 0 times infinity is NaN.
    A sequence without real steps is filled with its first input, or with ones if that is zero or
    not finite.

    Args:
      inputs: The inputs.
      valid: Which steps are real.
    """
    if not len(inputs):
        return inputs
    first = jnp.argmax(valid, axis=0)[None, ..., None]
    filler = jax.lax.stop_gradient(jnp.take_along_axis(inputs, first, axis=0))
    is_finite = jnp.all(jnp.isfinite(filler), axis=-1, keepdims=True)
    usable = is_finite & jnp.any(filler != 0, axis=-1, keepdims=True)
    has_real = jnp.any(valid, axis=0)[None, ..., None]
    return jnp.where(valid[..., None], inputs, jnp.where(has_real | usable, filler, 1))
