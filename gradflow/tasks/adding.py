"""The adding problem, in three published variants."""

import jax
import jax.numpy as jnp

from gradflow.cell import Key
from gradflow.checks import check_integer
from gradflow.tasks.inputs import adding as adding_inputs
from gradflow.tasks.marked import marked_pairs
from gradflow.tasks.task import Batch, Task, at_end, at_every_step, at_step, within


def adding(*, num_steps: int = 100) -> Task:
    """The adding problem in its current form: output the sum of the two marked values.

    x_t = (value, marker) with values U(0, 1) and one marker in each half::

        target = value_p + value_q      p < ⌊T/2⌋ <= q

    at the last step, with a squared loss. The best prediction without memory is 1; its loss is the
    variance of the target, 2/12 = 1/6. The papers give no criterion. The criterion here is that of
    Pascanu 2013: a squared error below 0.04 for 99 % of new sequences.

    Raises:
      TypeError: If num_steps is not an integer.
      ValueError: If it is below 2.

    Source: Le, Jaitly, Hinton 2015, arXiv:1504.00941; Arjovsky, Shah, Bengio 2016,
    arXiv:1511.06464.
    """
    check_integer("num_steps", num_steps, 2)

    def sample(key: Key, batch_size: int) -> Batch:
        inputs = adding_inputs(key, (batch_size, num_steps, 2)).swapaxes(0, 1)
        target = jnp.sum(inputs[..., 0] * inputs[..., 1], axis=0)
        return at_end(inputs, target[:, None])

    return Task(sample, 2, 1, num_steps, "squared", 1 / 6, within(0.2), success=0.99)


def adding_1997(*, num_steps: int = 100) -> Task:
    """The adding problem of 1997, with values in [-1, 1] and lengths T to T + T/10.

    x_t = (value, marker) with values U(-1, 1). The first marker is at one of the first ten pairs,
    the second at another one of the first T/2 - 1. The marker of the first and of the last pair is
    -1, all other markers are 0. If the first pair is marked, its value is 0. At the end of the
    sequence::

        target = 0.5 + (value_p + value_q) / 4

    A sequence is correct if its error is below 0.04; the problem is solved if all are. A shorter
    sequence is padded with zeros. The best prediction without memory is 0.5; its loss is
    (2 - P(the first pair is marked)) / 48 with P = 1/10 + (9/10) / (⌊T/2⌋ - 2).

    Args:
      num_steps: T, the smallest length. The task has steps for the largest length.

    Raises:
      TypeError: If num_steps is not an integer.
      ValueError: If it is below 22: the second marker needs 10 of the first T/2 - 1 pairs.

    Source: Hochreiter & Schmidhuber 1997, doi:10.1162/neco.1997.9.8.1735, experiment 4.
    """
    check_integer("num_steps", num_steps, 22)
    longest = num_steps + num_steps // 10
    window = num_steps // 2 - 1

    def sample(key: Key, batch_size: int) -> Batch:
        k_values, k_first, k_second, k_length = jax.random.split(key, 4)
        first = jax.random.randint(k_first, (batch_size,), 0, 10)
        # Uniform over the positions other than `first`: skip it by adding 1 from it on.
        second = jax.random.randint(k_second, (batch_size,), 0, window - 1)
        second += second >= first
        length = jax.random.randint(k_length, (batch_size,), num_steps, longest + 1)
        marked = at_step(first, longest) + at_step(second, longest)
        values = jax.random.uniform(k_values, (longest, batch_size), minval=-1.0)
        values = jnp.where(jnp.arange(longest)[:, None] < length, values, 0)
        values = values.at[0].multiply(1 - marked[0])
        ends = at_step(jnp.zeros_like(length), longest) * (1 - marked) + at_step(
            length - 1, longest
        )
        target = 0.5 + jnp.sum(values * marked, axis=0) / 4
        inputs = jnp.stack([values, marked - ends], axis=-1)
        return Batch(inputs, at_every_step(target[:, None], longest), at_step(length - 1, longest))

    first_is_marked = 1 / 10 + 9 / 10 / (window - 1)
    baseline = (2 - first_is_marked) / 48
    return Task(sample, 2, 1, longest, "squared", baseline, within(0.04), success=1.0)


def adding_2013(*, num_steps: int = 100) -> Task:
    """The adding problem with the marker positions and the target of Pascanu 2013.

    Values are U(0, 1), lengths l = T ... 1.1 T - 1. One marker is in the first tenth of a
    sequence, the other between the first tenth and the half::

        target = (value_p + value_q) / 2      0 <= p < 0.1 l <= q < 0.5 l

    at the end. The best prediction without memory is 1/2; its loss is 1/24. A sequence is correct
    if its squared error is below 0.04; the problem is solved if 99 % are.

    Raises:
      TypeError: If num_steps is not an integer.
      ValueError: If it is below 10.

    Source: Pascanu, Mikolov, Bengio 2013, arXiv:1211.5063, and the code that came with it.
    """
    check_integer("num_steps", num_steps, 10)

    def sample(key: Key, batch_size: int) -> Batch:
        k_pairs, k_values = jax.random.split(key)
        pairs = marked_pairs(k_pairs, batch_size, num_steps)
        values = jax.random.uniform(k_values, pairs.markers.shape)
        target = jnp.sum(values * pairs.markers, axis=0) / 2
        return pairs.batch(values, target[:, None])

    longest = num_steps + num_steps // 10 - 1
    return Task(sample, 2, 1, longest, "squared", 1 / 24, within(0.2), success=0.99)
