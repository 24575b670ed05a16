"""Tasks of tracking a finite state: the parity of bits, and modular arithmetic without brackets."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from gradflow.cell import Key
from gradflow.checks import check_integer
from gradflow.tasks.task import Batch, Task, classified

_PLUS, _MINUS, _TIMES = range(3)


def parity(*, num_steps: int = 40) -> Task:
    """Parity: output at every step whether the number of ones read so far is odd.

    x_t is a bit, 0 or 1 with equal probability, one-hot::

        class_t = x_1 xor ... xor x_t

    Every step has a loss, so that one sequence trains all lengths up to T. The loss without memory
    is log 2. A sequence is correct if all of its steps are; the task is solved if 99 % are. This
    criterion is our own.

    Raises:
      TypeError: If num_steps is not an integer.
      ValueError: If it is below 1.

    Source: after Grazzi et al. 2025, arXiv:2411.12537, Table 3.
    """
    check_integer("num_steps", num_steps, 1)

    def sample(key: Key, batch_size: int) -> Batch:
        bits = jax.random.randint(key, (num_steps, batch_size), 0, 2)
        inputs = jax.nn.one_hot(bits, 2)
        return Batch(inputs, jnp.cumsum(bits, axis=0) % 2, jnp.ones_like(inputs[..., 0]))

    return Task(sample, 2, 2, num_steps, "cross_entropy", math.log(2), classified, success=0.99)


def modular_arithmetic(*, num_steps: int = 40, modulus: int = 5) -> Task:
    """Modular arithmetic without brackets: output the value mod m of the expression read so far.

    The symbols are the numbers 0 ... m - 1 and +, -, ×, one-hot. A number is read at the odd steps
    and an operation at the even ones, each with equal probability. The multiplication binds first::

        2 × 3 - 4      classes 2, -, 1, -, 2 for m = 5

    Every number has a loss, so that one sequence trains all lengths up to T. The loss without
    memory is about log m, within 2 %: products are 0 more often than other values. A sequence is
    correct if all of its numbers are; the task is solved if 99 % are. This criterion is our own.

    Args:
      num_steps: T.
      modulus: m.

    Raises:
      TypeError: If an option is not an integer.
      ValueError: If num_steps is below 1, or the modulus below 2.

    Source: after Grazzi et al. 2025, arXiv:2411.12537, Table 3 (without brackets).
    """
    check_integer("num_steps", num_steps, 1)
    check_integer("modulus", modulus, 2)

    def sample(key: Key, batch_size: int) -> Batch:
        k_numbers, k_operations = jax.random.split(key)
        shape = num_steps // 2 + 1, batch_size
        numbers = jax.random.randint(k_numbers, shape, 0, modulus)
        operations = jax.random.randint(k_operations, shape, 0, 3).at[0].set(_PLUS)
        # The first operation, which is not read, stands before the first number.
        symbols = jnp.stack([operations + modulus, numbers], axis=1).reshape(-1, batch_size)
        values = jnp.repeat(_values(operations, numbers, modulus), 2, axis=0)
        weights = jnp.arange(num_steps) % 2 == 0
        return Batch(
            jax.nn.one_hot(symbols[1 : num_steps + 1], modulus + 3),
            values[:num_steps],
            jnp.broadcast_to(weights[:, None], (num_steps, batch_size)).astype(float),
        )

    sizes = modulus + 3, modulus
    baseline = math.log(modulus)
    return Task(sample, *sizes, num_steps, "cross_entropy", baseline, classified, success=0.99)


def _values(
    operations: Int[Array, "numbers batch"], numbers: Int[Array, "numbers batch"], modulus: int
) -> Int[Array, "numbers batch"]:
    """Computes the value mod m after each number; the first operation is a plus."""

    def read(state: tuple[Array, Array], symbols: tuple[Array, Array]):
        total, term = state
        operation, number = symbols
        is_product = operation == _TIMES
        total = jnp.where(is_product, total, total + term) % modulus
        signed = jnp.where(operation == _MINUS, -number, number)
        term = jnp.where(is_product, term * number, signed) % modulus
        return (total, term), (total + term) % modulus

    zero = jnp.zeros_like(numbers[0])
    return jax.lax.scan(read, (zero, zero), (operations, numbers))[1]
