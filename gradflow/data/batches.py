"""Padded batches of sequences with similar lengths, in a reproducible order for each epoch."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from gradflow.checks import check_integer

POOL = 32
"""Number of batches that are sorted by length together. A larger pool needs less padding."""


class PaddedBatch(NamedTuple):
    """Padded sequences, time-major.

    Attributes:
      ids: Word ids, 0 after the end of a sequence.
      lengths: Number of real steps of each sequence, at least 1.
      labels: Class of each sequence.
      weights: 1 for an example, 0 for a row that fills the batch.
    """

    ids: Int[np.ndarray, "steps batch"]
    lengths: Int[np.ndarray, " batch"]
    labels: Int[np.ndarray, " batch"]
    weights: Float[np.ndarray, " batch"]


def bucket_sizes(max_length: int, *, count: int = 4) -> tuple[int, ...]:
    """Returns evenly spaced lengths up to max_length, to which batches are padded.

    Few sizes are used, because each size compiles a program.

    Raises:
      TypeError: If an argument is not an integer.
      ValueError: If an argument is below 1.
    """
    check_integer("max_length", max_length, 1)
    check_integer("count", count, 1)
    return tuple(sorted({-(-max_length * part // count) for part in range(1, count + 1)}))


def shuffled_batches(
    sequences: Sequence[Int[np.ndarray, " _"]],
    labels: Int[np.ndarray, " examples"],
    batch_size: int,
    *,
    sizes: Sequence[int],
    seed: Sequence[int],
) -> Iterator[PaddedBatch]:
    """Yields every sequence once, in random batches of sequences with similar lengths.

    The sequences are shuffled. Then pools of `POOL` batches are sorted by length and cut into
    batches, and the batches are shuffled. Equal seeds give equal batches.

    Args:
      sequences: Word ids of each sequence.
      labels: Class of each sequence.
      batch_size: Rows of every batch. The last batch is filled with rows of weight 0.
      sizes: The numbers of steps that a batch may have.
      seed: Seed of the order, for example the run's seed and the epoch.

    Raises:
      ValueError: If a sequence is longer than all sizes, or the number of labels is wrong.
    """
    rng = np.random.default_rng(seed)
    order, lengths = rng.permutation(len(sequences)), np.array([len(one) for one in sequences])
    pools = [order[i : i + POOL * batch_size] for i in range(0, len(order), POOL * batch_size)]
    rows = [row for pool in pools for row in _cut(pool[np.argsort(lengths[pool])], batch_size)]
    for index in rng.permutation(len(rows)):
        yield padded(sequences, labels, rows[index], batch_size, sizes)


def batches_in_order(
    sequences: Sequence[Int[np.ndarray, " _"]],
    labels: Int[np.ndarray, " examples"],
    batch_size: int,
    *,
    sizes: Sequence[int],
) -> Iterator[tuple[Int[np.ndarray, " rows"], PaddedBatch]]:
    """Yields every sequence once, by increasing length, with the indices of a batch's rows.

    Raises:
      ValueError: If a sequence is longer than all sizes, or the number of labels is wrong.
    """
    order = np.argsort([len(one) for one in sequences], kind="stable")
    for rows in _cut(order, batch_size):
        yield rows, padded(sequences, labels, rows, batch_size, sizes)


def padded(
    sequences: Sequence[Int[np.ndarray, " _"]],
    labels: Int[np.ndarray, " examples"],
    rows: Int[np.ndarray, " rows"],
    batch_size: int,
    sizes: Sequence[int],
) -> PaddedBatch:
    """Makes a batch of the given rows, padded to the smallest size that fits the longest one.

    Raises:
      ValueError: If a sequence is longer than all sizes, or the number of labels is wrong.
    """
    if len(sequences) != len(labels):
        raise ValueError(
            f"Expected a label for each of {len(sequences)} sequences, got {len(labels)}. Pass "
            "sequences and labels of the same examples."
        )
    longest = max(len(sequences[row]) for row in rows)
    if longest > max(sizes):
        raise ValueError(
            f"Expected sequences of at most {max(sizes)} steps, got one of {longest}. Truncate it, "
            "or add a larger size."
        )
    batch = PaddedBatch(
        ids=np.zeros((min(size for size in sizes if size >= longest), batch_size), np.int32),
        lengths=np.ones(batch_size, np.int32),
        labels=np.zeros(batch_size, np.int32),
        weights=np.zeros(batch_size, np.float32),
    )
    for column, row in enumerate(rows):
        batch.ids[: len(sequences[row]), column] = sequences[row]
        batch.lengths[column] = len(sequences[row])
    batch.labels[: len(rows)], batch.weights[: len(rows)] = labels[rows], 1
    return batch


def _cut(rows: Int[np.ndarray, " _"], size: int) -> list[Int[np.ndarray, " _"]]:
    return [rows[i : i + size] for i in range(0, len(rows), size)]
