"""Tasks on symbol sequences with few relevant symbols: temporal order and random permutation."""

import math

import jax
import jax.numpy as jnp

from gradflow.cell import Key
from gradflow.checks import check_integer
from gradflow.tasks.task import Batch, Task, at_end, classified

_STARTS = {2: (1, 5), 3: (1, 3, 6)}
"""The start of the intervals that contain the relevant symbols, in tenths of T, by order."""


def temporal_order(*, num_steps: int = 50, order: int = 2) -> Task:
    """Temporal order: classify the order in which A and B occur at two or three positions.

    There are six symbols, one-hot. A or B occurs once in each of the intervals below; at all other
    steps there is one of the four distractors c, d, e, f, with equal probability. With n = ⌊T/10⌋
    and s = ⌊i T/10⌋::

        order 2   position in [s, s + n) for i = 1 and 5       4 classes AA, BA, AB, BB
        order 3   position in [s, s + n) for i = 1, 3 and 6    8 classes, first symbol = lowest bit

    The class is the target at the last step. The loss without memory is order · log 2. The problem
    is solved if 99 % of new sequences are classified correctly.

    Args:
      num_steps: T.
      order: 2 or 3, the number of relevant symbols ("3-bit temporal order").

    Raises:
      TypeError: If num_steps is not an integer.
      ValueError: If it is below 10, or order is neither 2 nor 3.

    Source: Hochreiter & Schmidhuber 1997, doi:10.1162/neco.1997.9.8.1735, experiment 6, in the
    form of Pascanu, Mikolov, Bengio 2013, arXiv:1211.5063; positions as in its code (a comment
    there gives [1, T/10] for the first position, which the code does not do).
    """
    check_integer("num_steps", num_steps, 10)
    if order not in tuple(_STARTS):
        raise ValueError(f"Expected order to be 2 or 3, got {order!r}. Set it to 2 or 3.")
    starts = jnp.array(_STARTS[order])[:, None] * num_steps // 10

    def sample(key: Key, batch_size: int) -> Batch:
        k_positions, k_letters, k_distractors = jax.random.split(key, 3)
        shape = order, batch_size
        positions = starts + jax.random.randint(k_positions, shape, 0, num_steps // 10)
        letters = jax.random.randint(k_letters, shape, 0, 2)
        symbols = jax.random.randint(k_distractors, (num_steps, batch_size), 2, 6)
        symbols = symbols.at[positions, jnp.arange(batch_size)].set(letters)
        target = jnp.sum(letters << jnp.arange(order)[:, None], axis=0)
        return at_end(jax.nn.one_hot(symbols, 6), target)

    baseline = order * math.log(2)
    return Task(sample, 6, 2**order, num_steps, "cross_entropy", baseline, classified, success=0.99)


def permutation(*, num_steps: int = 100, num_symbols: int = 100) -> Task:
    """Random permutation: the symbol after the last step equals the first symbol, 0 or 1.

    There are S symbols, one-hot. The first step has 0 or 1; every other step has one of the S - 2
    distractors 2 ... S - 1, with equal probability. The target at the last step is the first
    symbol, among S classes. (This is a next-symbol prediction in which no other symbol is
    predictable; as in the code, the loss is at the predictable one only.) The loss without memory
    is log 2. The problem is solved if 99 % of new sequences are classified correctly.

    Args:
      num_steps: T.
      num_symbols: S.

    Raises:
      TypeError: If an option is not an integer.
      ValueError: If num_steps is below 2 or num_symbols below 3.

    Source: Martens & Sutskever 2011, ICML; Pascanu, Mikolov, Bengio 2013, arXiv:1211.5063, and
    its code.
    """
    check_integer("num_steps", num_steps, 2)
    check_integer("num_symbols", num_symbols, 3)

    def sample(key: Key, batch_size: int) -> Batch:
        k_first, k_rest = jax.random.split(key)
        first = jax.random.randint(k_first, (batch_size,), 0, 2)
        rest = jax.random.randint(k_rest, (num_steps - 1, batch_size), 2, num_symbols)
        symbols = jnp.concatenate([first[None], rest])
        return at_end(jax.nn.one_hot(symbols, num_symbols), first)

    sizes = num_symbols, num_symbols
    return Task(sample, *sizes, num_steps, "cross_entropy", math.log(2), classified, success=0.99)
