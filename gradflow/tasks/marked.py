"""Tasks on two marked values: multiplication and exclusive or."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gradflow.cell import Key
from gradflow.tasks.parts import at_every_step, at_step, check_count, classified, within
from gradflow.tasks.task import Batch, Task


class MarkedPairs(NamedTuple):
    """Two marked steps in each sequence, and where each sequence ends.

    Attributes:
      markers: 1 at the two steps, 0 elsewhere.
      ends: 1 at the last step of each sequence, 0 elsewhere.
    """

    markers: Float[Array, "steps batch"]
    ends: Float[Array, "steps batch"]

    def batch(
        self,
        values: Float[Array, "steps batch"],
        target: Float[Array, "batch 1"] | Int[Array, " batch"],
    ) -> Batch:
        """The values beside their markers, zeros past the end, and the loss at the end."""
        is_real = jnp.cumsum(self.ends[::-1], axis=0)[::-1]
        inputs = jnp.stack([values * is_real, self.markers], axis=-1)
        return Batch(inputs, at_every_step(target, len(values)), self.ends)


def marked_pairs(key: Key, batch_size: int, num_steps: int) -> MarkedPairs:
    """Draws lengths l = T ... 1.1 T - 1 and marks a step in [0, 0.1 l) and one in [0.1 l, 0.5 l).

    Source: the code of Pascanu, Mikolov, Bengio 2013 (which draws one length for a batch).
    """
    longest = num_steps + num_steps // 10 - 1
    k_length, k_first, k_second = jax.random.split(key, 3)
    length = jax.random.randint(k_length, (batch_size,), num_steps, longest + 1)
    tenth = length // 10
    first = jax.random.randint(k_first, (batch_size,), 0, tenth)
    second = jax.random.randint(k_second, (batch_size,), tenth, tenth + 4 * length // 10)
    markers = at_step(first, longest) + at_step(second, longest)
    return MarkedPairs(markers, at_step(length - 1, longest))


def multiplication(*, num_steps: int = 100) -> Task:
    """The multiplication problem: say the product of the two values that are marked.

    Values U(0, 1), lengths l = T ... 1.1 T - 1, and markers as in `adding_2013`::

        target = value_p · value_q      0 <= p < 0.1 l <= q < 0.5 l

    at the end, with a squared loss. The best answer that remembers nothing is 1/4, and its loss
    the variance of the target, 1/9 - 1/16 = 7/144. A sequence is right if its squared error is
    below 0.04 (so that most are by that answer already); the problem is solved if 99 % are.

    Raises:
      TypeError: If num_steps is not an integer.
      ValueError: If it is below 10.

    Source: Hochreiter & Schmidhuber 1997, doi:10.1162/neco.1997.9.8.1735, experiment 5, in the form
    of Pascanu, Mikolov, Bengio 2013, arXiv:1211.5063, and its code.
    """
    check_count("num_steps", num_steps, 10)

    def sample(key: Key, batch_size: int) -> Batch:
        k_pairs, k_values = jax.random.split(key)
        places = marked_pairs(k_pairs, batch_size, num_steps)
        values = jax.random.uniform(k_values, places.markers.shape)
        target = jnp.prod(jnp.where(places.markers > 0, values, 1), axis=0)
        return places.batch(values, target[:, None])

    longest = num_steps + num_steps // 10 - 1
    return Task(sample, 2, 1, longest, "squared", 7 / 144, within(0.2), success=0.99)


def xor(*, num_steps: int = 100) -> Task:
    """The XOR problem: say whether the two bits that are marked differ.

    Values are bits, 0 or 1 with equal chance; lengths and markers as in `adding_2013`::

        class = bit_p xor bit_q      0 <= p < 0.1 l <= q < 0.5 l

    at the end, with a cross-entropy. What remembers nothing, or one of the bits alone, has
    log 2. The problem counts as solved if 99 % of fresh sequences are classified correctly; that
    criterion is our own here, taken from Pascanu's for his other classifications.

    Raises:
      TypeError: If num_steps is not an integer.
      ValueError: If it is below 10.

    Source: Martens & Sutskever 2011, ICML, problem "XOR"; markers as in Pascanu 2013.
    """
    check_count("num_steps", num_steps, 10)

    def sample(key: Key, batch_size: int) -> Batch:
        k_pairs, k_bits = jax.random.split(key)
        places = marked_pairs(k_pairs, batch_size, num_steps)
        bits = jax.random.bernoulli(k_bits, shape=places.markers.shape)
        target = jnp.sum(bits * places.markers, axis=0).astype(int) % 2
        return places.batch(bits.astype(places.markers.dtype), target)

    longest = num_steps + num_steps // 10 - 1
    return Task(sample, 2, 2, longest, "cross_entropy", math.log(2), classified, success=0.99)
