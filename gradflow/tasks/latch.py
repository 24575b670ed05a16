"""The latch: one bit held through noise, the task on which the problem was found."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from gradflow.cell import Key
from gradflow.tasks.parts import at_end, check_count
from gradflow.tasks.task import Batch, Predictions, Task


def latch(*, num_steps: int = 50, num_informed: int = 3, noise: float = 0.2) -> Task:
    """The latch: hold a bit that the first steps tell, through noise, to the last.

    With a class y = ±1 of equal chance and ε ~ N(0, noise²)::

        x_t = y          t = 1 ... L
        x_t = ε_t        t = L + 1 ... T

    and the target 0.8 y at the last step, with a squared loss. (In the paper the first L inputs
    of each class were learned; here they are the class itself.) The best answer that remembers
    nothing is 0, with a loss of 0.64. A sequence is right if the sign of the answer is, and the
    task counts as solved if 99 % are; both are our own criterion.

    Args:
      num_steps: T.
      num_informed: L.
      noise: Standard deviation of the inputs after the first L.

    Raises:
      TypeError: If a count is not an integer.
      ValueError: If L is below 1, T not above L, or the noise negative.

    Source: Bengio, Simard, Frasconi 1994, doi:10.1109/72.279181, section III.
    """
    check_count("num_informed", num_informed, 1)
    check_count("num_steps", num_steps, num_informed + 1)
    if not isinstance(noise, int | float) or not 0 <= noise < math.inf:
        raise ValueError(f"noise is expected to be a standard deviation, 0 or more, got {noise!r}")

    def sample(key: Key, batch_size: int) -> Batch:
        k_class, k_noise = jax.random.split(key)
        y = jax.random.rademacher(k_class, (1, batch_size, 1)).astype(float)
        rest = noise * jax.random.normal(k_noise, (num_steps - num_informed, batch_size, 1))
        inputs = jnp.concatenate([jnp.repeat(y, num_informed, axis=0), rest])
        return at_end(inputs, 0.8 * y[0])

    return Task(sample, 1, 1, num_steps, "squared", 0.64, same_sign, success=0.99)


def same_sign(predictions: Predictions, batch: Batch) -> Bool[Array, " batch"]:
    """Whether the answer has the sign of the target at every step that counts."""
    same = jnp.all(predictions * batch.targets > 0, axis=-1)
    return jnp.all(same | (batch.weights == 0), axis=0)
