"""What a cell does at a padded step: it copies the carry, and no derivative goes wrong there."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gradflow.cell import Carry, Cell, Params


def copying_step(
    cell: Cell,
) -> Callable[[Params, Carry, tuple[Array, Array]], tuple[Carry, Array]]:
    """The cell's step for inputs (x_t, whether t is real), which copies the carry where it is not.

    The step is evaluated at a padded step too, with an input from `fill_padding`, and its result is
    not used.
    """

    def step(params: Params, carry: Carry, x: tuple[Array, Array]) -> tuple[Carry, Array]:
        value, is_real = x

        def choose(a: Array, b: Array) -> Array:
            return jnp.where(is_real, a, b)

        # Both sides of the first choice are the same number. It stops what comes back from a padded
        # step: 0 times the step's derivative, which is NaN where that is infinite.
        still = jax.tree.map(jax.lax.stop_gradient, carry)
        new, _ = cell.step(params, jax.tree.map(choose, carry, still), value)
        carry = jax.tree.map(choose, new, carry)
        return carry, cell.hidden(carry)

    return step


def fill_padding(
    inputs: Float[Array, "steps *batch input"], valid: Bool[Array, "steps *batch"]
) -> Float[Array, "steps *batch input"]:
    """The inputs with the first real one of the same sequence at every padded step.

    What stands in the padding, be it NaN, then reaches no derivative. Zeros would not do: the
    derivative of the step by its parameters may be infinite there (that of x / ‖x‖ is), and 0 times
    infinity is NaN. A sequence without a real step has what stands at its first step, or ones where
    that is all zero or not finite.

    Args:
      inputs: The inputs.
      valid: Which steps are real.
    """
    if not len(inputs):
        return inputs
    first = jnp.argmax(valid, axis=0)[None, ..., None]
    filler = jax.lax.stop_gradient(jnp.take_along_axis(inputs, first, axis=0))
    is_finite = jnp.all(jnp.isfinite(filler), axis=-1, keepdims=True)
    fits = is_finite & jnp.any(filler != 0, axis=-1, keepdims=True)
    has_real = jnp.any(valid, axis=0)[None, ..., None]
    return jnp.where(valid[..., None], inputs, jnp.where(has_real | fits, filler, 1))
