"""The pathological tasks of Pascanu 2013, and the settings of MSGD-CR for each.

Source: Pascanu, Mikolov, Bengio 2013, arXiv:1211.5063, section 4.1, and the preprint's appendix.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradflow.tasks import Batch, Task, resolve_task


class Problem(NamedTuple):
    """A task, and the training on it.

    Attributes:
      spec: The task's spec, with a place for T.
      label: Its name in the figure.
      omega: The weight of Ω.
      threshold: The threshold of the clipping.
      width: The factor by which the RNN is wider than the others.
      learning_rate: The learning rate of the gradient descent.
      published: The fraction of seeds that succeed in the paper.
    """

    spec: str
    label: str
    omega: float = 4.0
    threshold: float = 1.0
    width: int = 1
    learning_rate: float = 0.01
    published: float = 1.0


PROBLEMS = {
    "addition": Problem(
        "adding_2013(num_steps={})", "addition", omega=0.5, threshold=6.0, learning_rate=0.1
    ),
    "multiplication": Problem(
        "multiplication(num_steps={})", "multiplication", omega=0.5, threshold=6.0,
        learning_rate=0.1,
    ),
    "order3": Problem("temporal_order(num_steps={}, order=3)", "3-bit order"),
    "bits5": Problem(
        "memorisation(lag={}, num_symbols=2, num_recalled=5)", "5 bits", learning_rate=0.3
    ),
    "bits20": Problem(
        "memorisation(lag={}, num_symbols=5, num_recalled=10)", "20+ bits", learning_rate=0.3
    ),
    "permutation": Problem(
        "permutation(num_steps={})", "permutation", omega=1.0, threshold=6.0, width=2,
        learning_rate=0.1, published=0.4,
    ),
}  # fmt: skip
ORDER = Problem("temporal_order(num_steps={})", "temporal order")
"""Temporal order, which is learnt at random lengths as well."""


def random_order(shortest: int, longest: int) -> Task:
    """Makes temporal order over lengths shortest ... longest, with each length's own positions.

    A shorter sequence is followed by zeros, and the loss is at its end. As in the authors' code the
    task counts as solved when no sequence of an evaluation is wrong.
    """
    like = resolve_task(ORDER.spec.format(longest))

    def sample(key: jax.Array, batch_size: int) -> Batch:
        k_length, k_positions, k_letters, k_distractors = jax.random.split(key, 4)
        length = jax.random.randint(k_length, (batch_size,), shortest, longest + 1)
        starts = jnp.array([[1], [5]]) * length // 10
        offsets = jax.random.randint(k_positions, (2, batch_size), 0, length // 10)
        letters = jax.random.randint(k_letters, (2, batch_size), 0, 2)
        symbols = jax.random.randint(k_distractors, (longest, batch_size), 2, 6)
        symbols = symbols.at[starts + offsets, jnp.arange(batch_size)].set(letters)
        inside = jnp.arange(longest)[:, None] < length
        inputs = jax.nn.one_hot(symbols, 6) * inside[..., None]
        target = jnp.broadcast_to(letters[0] + 2 * letters[1], symbols.shape)
        return Batch(inputs, target, jax.nn.one_hot(length - 1, longest, axis=0))

    return like._replace(sample=sample, success=1.0)
