"""Sequences drawn out of longer data."""

import jax
import numpy as np
from jaxtyping import Int, Shaped

from gradflow.cell import Key


def draw_rows(key: Key, num_rows: int, num_drawn: int) -> Int[np.ndarray, " drawn"]:
    """Indices in 0 ... num_rows - 1, uniform, and all different where there are enough."""
    return np.asarray(jax.random.choice(key, num_rows, (num_drawn,), replace=num_drawn > num_rows))


def draw_windows(
    key: Key, data: Shaped[np.ndarray, " length"], num_sequences: int, num_steps: int, *, what: str
) -> Shaped[np.ndarray, "sequences steps"]:
    """Windows of successive entries; their starts are uniform, and differ while there are enough.

    Raises:
      ValueError: If the data are shorter than a window; ``what`` names them.
    """
    if num_steps > len(data):
        raise ValueError(
            f"num_steps of at most {len(data)} is expected: there are {len(data)} {what}, "
            f"got {num_steps}"
        )
    starts = draw_rows(key, len(data) - num_steps + 1, num_sequences)
    return data[starts[:, None] + np.arange(num_steps)]
