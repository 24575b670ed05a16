"""Random samples of rows and of windows of longer data."""

import jax
import numpy as np
from jaxtyping import Int, Shaped

from gradflow.cell import Key


def sample_rows(key: Key, num_rows: int, num_samples: int) -> Int[np.ndarray, " samples"]:
    """Samples uniform indices in 0 ... num_rows - 1, without replacement if there are enough.

    The time grows with num_rows: for millions of rows see `sample_windows`.
    """
    return np.asarray(
        jax.random.choice(key, num_rows, (num_samples,), replace=num_samples > num_rows)
    )


def sample_windows(
    key: Key, data: Shaped[np.ndarray, " length"], num_sequences: int, num_steps: int, *, what: str
) -> Shaped[np.ndarray, "sequences steps"]:
    """Samples windows of successive entries, with uniform starts.

    The starts are sampled without replacement if there are enough of them.

    Raises:
      ValueError: If the data are shorter than a window. ``what`` names them in the error.
    """
    if num_steps > len(data):
        raise ValueError(
            f"Expected num_steps of at most {len(data)}, the number of {what}, got {num_steps}. "
            f"Set num_steps={len(data)} or less."
        )
    # NumPy, because jax.random.choice sorts all starts several times: a minute for 20 million.
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    num_starts = len(data) - num_steps + 1
    starts = rng.choice(num_starts, num_sequences, replace=num_sequences > num_starts)
    return data[starts[:, None] + np.arange(num_steps)]
