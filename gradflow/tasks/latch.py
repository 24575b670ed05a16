"""The latch task: store one bit under noise, as in the first study of vanishing gradients."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from gradflow.cell import Key
from gradflow.checks import check_integer, check_number
from gradflow.tasks.task import Batch, Predictions, Task, at_end, at_weighted_steps


def latch(*, num_steps: int = 50, num_informed: int = 3, noise: float = 0.2) -> Task:
    """The latch: store the bit given at the first steps until the last step, under noise.

    With a class y = ±1 of equal probability and ε ~ N(0, noise²)::

        x_t = y          t = 1 ... L
        x_t = ε_t        t = L + 1 ... T

    The target is 0.8 y at the last step, with a squared loss. (In the paper the first L inputs of
    each class are learned; here they are the class itself.) The best prediction without memory is
    0; its loss is 0.64. A sequence is correct if the sign of the output is; the task is solved if
    99 % are. This criterion is our own.

    Args:
      num_steps: T.
      num_informed: L, the number of steps that give the class.
      noise: Standard deviation of the later inputs.

    Raises:
      TypeError: If a count is not an integer, or noise is not a number.
      ValueError: If L is below 1, T not above L, or the noise negative.

    Source: Bengio, Simard, Frasconi 1994, doi:10.1109/72.279181, section III.
    """
    check_integer("num_informed", num_informed, 1)
    check_integer("num_steps", num_steps, num_informed + 1)
    check_number("noise", noise, "non-negative", example=0.2)

    def sample(key: Key, batch_size: int) -> Batch:
        k_class, k_noise = jax.random.split(key)
        y = jax.random.rademacher(k_class, (1, batch_size, 1)).astype(float)
        rest = noise * jax.random.normal(k_noise, (num_steps - num_informed, batch_size, 1))
        inputs = jnp.concatenate([jnp.repeat(y, num_informed, axis=0), rest])
        return at_end(inputs, 0.8 * y[0])

    return Task(sample, 1, 1, num_steps, "squared", 0.64, same_sign, success=0.99)


def same_sign(predictions: Predictions, batch: Batch) -> Bool[Array, " batch"]:
    """Checks that prediction and target have the same sign at every weighted step."""
    return at_weighted_steps(jnp.all(predictions * batch.targets > 0, axis=-1), batch)
