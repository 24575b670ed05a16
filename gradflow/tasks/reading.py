"""Reading a text: to say every next symbol of windows of it."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from gradflow.cell import Key
from gradflow.tasks.task import Batch, Task


def reading(codes: Int[np.ndarray, " n"], num_symbols: int, num_steps: int) -> Task:
    """The task of saying every next symbol of windows of a text, to probe the flow along it.

    Its baseline is the entropy of the symbols alone; a window is correct if all of it is.

    Raises:
      ValueError: If the text has no window of so many steps.
    """
    num_starts = len(codes) - num_steps
    if num_starts < 1:
        raise ValueError(
            f"a text of more than {num_steps} symbols is expected, got {len(codes)}: take fewer "
            "steps"
        )
    counts = np.bincount(codes, minlength=num_symbols)
    share = counts[counts > 0] / len(codes)

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
        baseline=float(-np.sum(share * np.log(share))),
        correct=lambda said, batch: jnp.all(jnp.argmax(said, axis=-1) == batch.targets, axis=0),
        success=1.0,
    )
