"""Measurements of very long sequences: the same numbers, with one chunk's carries in memory."""

import inspect
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import jax

from gradflow.flow.catalogue import CATALOGUE
from gradflow.flow.chunks import Chunks, Cutter, Progress


def in_chunks(
    measure: Callable[..., Any], *, chunk_steps: int = 10_000, progress: Progress = iter
) -> Callable[..., Any]:
    """Returns a measurement of one very long sequence that goes through it chunk by chunk.

    ::

        exponents = flow.in_chunks(flow.lyapunov_exponents, progress=tqdm)(cell, params, inputs)

    The cell is run to the end once, and the carries at the borders between chunks are kept. Then
    the measurement goes from chunk to chunk, forward or backward, as it does through the whole. The
    carries within a chunk are computed again from its border. What is in memory is one chunk, the
    inputs, the result, and for a loss the outputs. (The loop over chunks is Python's, which an
    interrupt ends: not for `jax.jit` or `jax.vmap`.)

    Args:
      measure: One of the measurements that the catalogue marks as chunkable.
      chunk_steps: Steps of a chunk; the last has what is left over.
      progress: Iterates over the chunks, once to run and once to measure: tqdm, for instance.

    Returns:
      A function of the arguments of the measurement, with its result in NumPy arrays: the same
      numbers to rounding. In `lyapunov_exponents` a stretch between two QRs ends with a chunk.

    Raises:
      ValueError: If the measurement cannot be chunked, or chunk_steps is below 1.
    """
    along = {entry.function: entry.along for entry in CATALOGUE.values() if entry.along}
    if measure not in along:
        known = ", ".join(function.__name__ for function in along)
        raise ValueError(
            f"Expected one of the measurements {known}, got {measure}. Call another one directly, "
            "or for a part of the sequence."
        )
    if chunk_steps < 1:
        raise ValueError(
            f"Expected chunk_steps of at least 1, got {chunk_steps}. The default is 10000."
        )

    @wraps(measure)
    def measured(*args: Any, **options: Any) -> Any:
        given = inspect.signature(measure).bind(*args, **options)
        given.apply_defaults()
        run = partial(Chunks, Cutter(chunk_steps, progress))
        return jax.device_get(along[measure](run, **given.arguments))

    return measured
