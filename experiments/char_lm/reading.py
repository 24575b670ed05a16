"""The task of predicting every next symbol of windows of a text."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from gradflow.cell import Key
from gradflow.tasks.task import Batch, Task


def reading(codes: Int[np.ndarray, " n"], num_symbols: int, num_steps: int) -> Task:
    """Makes the task of predicting every next symbol of windows of a text, for probes.

    Its baseline is the entropy of the symbol frequencies; a window is correct if all of it is.

    Raises:
      ValueError: If the text is shorter than a window.
    """
    num_starts = len(codes) - num_steps
    if num_starts < 1:
        raise ValueError(
            f"Expected a text of more than {num_steps} symbols, got {len(codes)}. Use fewer steps."
        )
    counts = np.bincount(codes, minlength=num_symbols)
    frequencies = counts[counts > 0] / len(codes)

    def sample(key: Key, size: int) -> Batch:
        starts = jax.random.randint(key, (size,), 0, num_starts)
        cut = jnp.asarray(codes)[starts + jnp.arange(num_steps + 1)[:, None]]
        inputs = jax.nn.one_hot(cut[:-1], num_symbols, dtype=jnp.result_type(float))
        return Batch(inputs, cut[1:], jnp.ones_like(inputs[..., 0]))

    return Task(
        sample,
        input_size=num_symbols,
        output_size=num_symbols,
        num_steps=num_steps,
        loss="cross_entropy",
        baseline=float(-np.sum(frequencies * np.log(frequencies))),
        correct=_whole,
        success=1.0,
    )


def _whole(predictions: Array, batch: Batch) -> Bool[Array, " batch"]:
    return jnp.all(jnp.argmax(predictions, axis=-1) == batch.targets, axis=0)
