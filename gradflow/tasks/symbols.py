"""Tasks on sequences of symbols with few that matter: temporal order and random permutation."""

import math

import jax
import jax.numpy as jnp

from gradflow.cell import Key
from gradflow.tasks.parts import at_end, check_count, classified
from gradflow.tasks.task import Batch, Task

_STARTS = {2: (1, 5), 3: (1, 3, 6)}
"""Where the stretches begin that hold the symbols that matter, in tenths of T."""


def temporal_order(*, num_steps: int = 50, order: int = 2) -> Task:
    """Temporal order: say which of A and B stood at each of two or three places, in order.

    Six symbols, one-hot: A and B once in each stretch of a tenth of T, and one of the four
    distractors c, d, e, f, with equal chance, at every other step. With n = ⌊T/10⌋ and a
    stretch that begins at s = ⌊i T/10⌋::

        order 2   places in [s, s + n) for i = 1 and 5        4 classes AA, BA, AB, BB
        order 3   places in [s, s + n) for i = 1, 3 and 6     8 classes, the first symbol lowest

    The class is to be said at the last step. What remembers nothing has order · log 2. The problem
    is solved if 99 % of fresh sequences are classified correctly.

    Args:
      num_steps: T.
      order: 2 or 3, the symbols that matter ("3-bit temporal order").

    Raises:
      TypeError: If num_steps is not an integer.
      ValueError: If it is below 10, or order is neither 2 nor 3.

    Source: Hochreiter & Schmidhuber 1997, doi:10.1162/neco.1997.9.8.1735, experiment 6, in the
    form of Pascanu, Mikolov, Bengio 2013, arXiv:1211.5063; places as in its code (the comment
    there, a first place within [1, T/10], is not what ran).
    """
    check_count("num_steps", num_steps, 10)
    if order not in tuple(_STARTS):
        raise ValueError(f"order is expected to be 2 or 3, got {order!r}")
    starts = jnp.array(_STARTS[order])[:, None] * num_steps // 10

    def sample(key: Key, batch_size: int) -> Batch:
        k_places, k_letters, k_distractors = jax.random.split(key, 3)
        shape = order, batch_size
        places = starts + jax.random.randint(k_places, shape, 0, num_steps // 10)
        letters = jax.random.randint(k_letters, shape, 0, 2)
        symbols = jax.random.randint(k_distractors, (num_steps, batch_size), 2, 6)
        symbols = symbols.at[places, jnp.arange(batch_size)].set(letters)
        target = jnp.sum(letters << jnp.arange(order)[:, None], axis=0)
        return at_end(jax.nn.one_hot(symbols, 6), target)

    baseline = order * math.log(2)
    return Task(sample, 6, 2**order, num_steps, "cross_entropy", baseline, classified, success=0.99)


def permutation(*, num_steps: int = 100, num_symbols: int = 100) -> Task:
    """Random permutation: the symbol after the last step is that of the first, 0 or 1.

    Of S symbols, one-hot, the first step has 0 or 1 and every other one of the S - 2 distractors
    2 ... S - 1, with equal chance. At the last step the symbol of the first is to be said, among S
    classes. (A task of next symbols in which all others cannot be foreseen: the loss sits, as in
    the code, on the one that can.) What remembers nothing has log 2. The problem is solved if
    99 % of fresh sequences are classified correctly.

    Args:
      num_steps: T.
      num_symbols: S.

    Raises:
      TypeError: If an option is not an integer.
      ValueError: If num_steps is below 2 or num_symbols below 3.

    Source: Martens & Sutskever 2011, ICML; Pascanu, Mikolov, Bengio 2013, arXiv:1211.5063, and
    its code.
    """
    check_count("num_steps", num_steps, 2)
    check_count("num_symbols", num_symbols, 3)

    def sample(key: Key, batch_size: int) -> Batch:
        k_first, k_rest = jax.random.split(key)
        first = jax.random.randint(k_first, (batch_size,), 0, 2)
        rest = jax.random.randint(k_rest, (num_steps - 1, batch_size), 2, num_symbols)
        symbols = jnp.concatenate([first[None], rest])
        return at_end(jax.nn.one_hot(symbols, num_symbols), first)

    sizes = num_symbols, num_symbols
    return Task(sample, *sizes, num_steps, "cross_entropy", math.log(2), classified, success=0.99)
