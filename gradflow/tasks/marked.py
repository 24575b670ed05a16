"""Tasks on two marked values of a sequence: multiplication and XOR."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gradflow.cell import Key
from gradflow.checks import check_integer
from gradflow.tasks.task import Batch, Task, at_every_step, at_step, classified, within


class MarkedPairs(NamedTuple):
    """The two marked steps and the last step of each sequence.

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
        """Makes a batch of values and markers, zero after the end, with the loss at the end."""
        is_real = jnp.cumsum(self.ends[::-1], axis=0)[::-1]
        inputs = jnp.stack([values * is_real, self.markers], axis=-1)
        return Batch(inputs, at_every_step(target, len(values)), self.ends)


def marked_pairs(key: Key, batch_size: int, num_steps: int) -> MarkedPairs:
    """Samples lengths l = T ... 1.1 T - 1 and marks steps in [0, 0.1 l) and in [0.1 l, 0.5 l).

    Source: the code of Pascanu, Mikolov, Bengio 2013 (which samples one length for a batch).
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
    """The multiplication problem: output the product of the two marked values.

    Values are U(0, 1); lengths l = T ... 1.1 T - 1 and markers are those of `adding_2013`::

        target = value_p · value_q      0 <= p < 0.1 l <= q < 0.5 l

    at the end, with a squared loss. The best prediction without memory is 1/4; its loss is the
    variance of the target, 1/9 - 1/16 = 7/144. A sequence is correct if its squared error is below
    0.04 (most are correct by this constant prediction); the problem is solved if 99 % are.

    Raises:
      TypeError: If num_steps is not an integer.
      ValueError: If it is below 10.

    Source: Hochreiter & Schmidhuber 1997, doi:10.1162/neco.1997.9.8.1735, experiment 5, in the form
    of Pascanu, Mikolov, Bengio 2013, arXiv:1211.5063, and its code.
    """
    check_integer("num_steps", num_steps, 10)

    def sample(key: Key, batch_size: int) -> Batch:
        k_pairs, k_values = jax.random.split(key)
        pairs = marked_pairs(k_pairs, batch_size, num_steps)
        values = jax.random.uniform(k_values, pairs.markers.shape)
        target = jnp.prod(jnp.where(pairs.markers > 0, values, 1), axis=0)
        return pairs.batch(values, target[:, None])

    longest = num_steps + num_steps // 10 - 1
    return Task(sample, 2, 1, longest, "squared", 7 / 144, within(0.2), success=0.99)


def xor(*, num_steps: int = 100) -> Task:
    """The XOR problem: decide whether the two marked bits differ.

    Values are bits, 0 or 1 with equal probability; lengths and markers are those of `adding_2013`::

        class = bit_p xor bit_q      0 <= p < 0.1 l <= q < 0.5 l

    at the end, with a cross-entropy. The loss without memory, or with memory of one bit only, is
    log 2. The problem is solved if 99 % of new sequences are classified correctly. This criterion
    is Pascanu's for the other classification tasks.

    Raises:
      TypeError: If num_steps is not an integer.
      ValueError: If it is below 10.

    Source: Martens & Sutskever 2011, ICML, problem "XOR"; markers as in Pascanu 2013.
    """
    check_integer("num_steps", num_steps, 10)

    def sample(key: Key, batch_size: int) -> Batch:
        k_pairs, k_bits = jax.random.split(key)
        pairs = marked_pairs(k_pairs, batch_size, num_steps)
        bits = jax.random.bernoulli(k_bits, shape=pairs.markers.shape)
        target = jnp.sum(bits * pairs.markers, axis=0).astype(int) % 2
        return pairs.batch(bits.astype(pairs.markers.dtype), target)

    longest = num_steps + num_steps // 10 - 1
    return Task(sample, 2, 2, longest, "cross_entropy", math.log(2), classified, success=0.99)
