"""Tasks of reproducing past inputs: copy memory, noiseless memorisation and delayed bits."""

import math

import jax
import jax.numpy as jnp

from gradflow.cell import Key
from gradflow.checks import check_integer
from gradflow.tasks.task import Batch, Task, classified


def copy(*, lag: int = 100, num_symbols: int = 8, num_recalled: int = 10) -> Task:
    """Copy memory: read K symbols, wait, and output them after a marker.

    With S symbols, a blank (S) and a marker (S + 1), one-hot, and T = lag::

        inputs   K symbols, T - 1 blanks, the marker, K blanks
        targets  T + K blanks, the K symbols

    with a cross-entropy over all T + 2K steps. The best prediction without memory is a blank at the
    steps of blanks and the uniform distribution over symbols after the marker; its loss is
    K log S / (T + 2K). The paper compares losses with this value. A sequence is correct if all of
    its steps are; the task is solved if 99 % are.

    Args:
      lag: T: a symbol is recalled T + K steps after it is read.
      num_symbols: S.
      num_recalled: K.

    Raises:
      TypeError: If an option is not an integer.
      ValueError: If one is below 1, or there is only one symbol.

    Source: Arjovsky, Shah, Bengio 2016, arXiv:1511.06464, section 5.1, after Hochreiter &
    Schmidhuber 1997.
    """
    check_integer("lag", lag, 1)
    return _recall(lag, num_symbols, num_recalled, marker=lag - 1)


def memorisation(*, lag: int = 100, num_symbols: int = 5, num_recalled: int = 10) -> Task:
    """Noiseless memorisation: read a pattern, wait for ``lag`` blanks, and output it at a marker.

    As `copy`, but the marker is at the first of the K output steps::

        inputs   K symbols, lag blanks, the marker, K - 1 blanks
        targets  lag + K blanks, the K symbols

    The best prediction without memory has the loss K log S / (lag + 2K). The default, 10 symbols of
    5 kinds, is the paper's problem with more than 20 bits; ``num_symbols=2, num_recalled=5`` is its
    problem with 5 bits. A sequence is correct if all of its steps are; the problem is solved if
    99 % are.

    Raises:
      TypeError: If an option is not an integer.
      ValueError: If lag is negative, one of the others is below 1, or there is only one symbol.

    Source: Martens & Sutskever 2011, ICML; Pascanu, Mikolov, Bengio 2013, arXiv:1211.5063, and
    its code.
    """
    check_integer("lag", lag, 0)
    return _recall(lag, num_symbols, num_recalled, marker=lag)


def _recall(lag: int, num_symbols: int, num_recalled: int, *, marker: int) -> Task:
    check_integer("num_symbols", num_symbols, 2)
    check_integer("num_recalled", num_recalled, 1)
    num_steps = lag + 2 * num_recalled
    baseline = num_recalled * math.log(num_symbols) / num_steps

    def sample(key: Key, batch_size: int) -> Batch:
        symbols = jax.random.randint(key, (num_recalled, batch_size), 0, num_symbols)
        blank = jnp.full((num_steps, batch_size), num_symbols)
        read = blank.at[:num_recalled].set(symbols).at[num_recalled + marker].set(num_symbols + 1)
        inputs = jax.nn.one_hot(read, num_symbols + 2)
        targets = blank.at[-num_recalled:].set(symbols)
        return Batch(inputs, targets, jnp.ones_like(inputs[..., 0]))

    sizes = num_symbols + 2, num_symbols + 1
    return Task(sample, *sizes, num_steps, "cross_entropy", baseline, classified, success=0.99)


def delayed_copy(*, delay: int = 10, num_steps: int = 300) -> Task:
    """Delayed copy: output at every step the bit that was read ``delay`` steps before.

    x_t is a bit, 0 or 1 with equal probability::

        class_t = x_{t-d}      t = d + 1 ... T

    The first d steps have no target and no loss. The loss without memory is log 2. The paper
    reports the fraction of correct bits; here a sequence is correct if all of its bits are, and the
    task is solved if 99 % are.

    Raises:
      TypeError: If an option is not an integer.
      ValueError: If delay is below 1, or T not above it.

    Source: Engelken 2023, arXiv:2312.17306, and its code (task 0).
    """
    return _delayed_parity(delay, 1, num_steps)


def delayed_xor(*, delay: int = 10, order: int = 1, num_steps: int = 300) -> Task:
    """Delayed XOR: output at every step the parity of 2^order bits, ``delay`` steps apart.

    With d = delay::

        class_t = x_{t-d} xor x_{t-2d} xor ... xor x_{t-2^order d}      t = 2^order d + 1 ... T

    All else is as in `delayed_copy`.

    Raises:
      TypeError: If an option is not an integer.
      ValueError: If delay or order is below 1, or T is not above 2^order · delay.

    Source: Engelken 2023, arXiv:2312.17306, and its code (task ``order``).
    """
    check_integer("order", order, 1)
    return _delayed_parity(delay, 2**order, num_steps)


def _delayed_parity(delay: int, num_bits: int, num_steps: int) -> Task:
    check_integer("delay", delay, 1)
    check_integer("num_steps", num_steps, num_bits * delay + 1)

    def sample(key: Key, batch_size: int) -> Batch:
        bits = jax.random.bernoulli(key, shape=(num_steps, batch_size)).astype(int)
        lags = delay * jnp.arange(1, num_bits + 1)
        past = jax.vmap(lambda lag: jnp.roll(bits, lag, axis=0))(lags)
        inputs = bits[..., None].astype(float)
        has_loss = jnp.arange(num_steps)[:, None] >= num_bits * delay
        weights = jnp.broadcast_to(has_loss, bits.shape).astype(inputs.dtype)
        return Batch(inputs, jnp.sum(past, axis=0) % 2, weights)

    return Task(sample, 1, 2, num_steps, "cross_entropy", math.log(2), classified, success=0.99)
