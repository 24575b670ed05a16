"""Batches of sequences of many lengths: alike in length, padded, and the same for each epoch."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

POOL = 32
"""Batches whose sequences are sorted by length together: the more, the less padding."""


class Batch(NamedTuple):
    """Sequences side by side, time first.

    Attributes:
      ids: The numbers of the words, 0 after the end of a sequence.
      lengths: The number of real steps of each; 1 or more.
      labels: The class of each.
      weights: 1 for an example, and 0 for a row that only fills the batch.
    """

    ids: Int[np.ndarray, "steps batch"]
    lengths: Int[np.ndarray, " batch"]
    labels: Int[np.ndarray, " batch"]
    weights: Float[np.ndarray, " batch"]


def bucket_sizes(max_length: int, *, count: int = 4) -> tuple[int, ...]:
    """Evenly spaced lengths, to the next of which batches are padded; the last is the longest.

    Raises:
      ValueError: If a number is below 1.
    """
    if max_length < 1 or count < 1:
        raise ValueError(
            f"max_length and count are expected to be at least 1, got {max_length} and {count}"
        )
    return tuple(sorted({-(-max_length * part // count) for part in range(1, count + 1)}))


def shuffled_batches(
    sequences: Sequence[Int[np.ndarray, " _"]],
    labels: Int[np.ndarray, " examples"],
    batch_size: int,
    *,
    sizes: Sequence[int],
    seed: Sequence[int],
) -> Iterator[Batch]:
    """Every sequence once, in a random order in which those of a batch are of like lengths.

    All are shuffled; `POOL` batches at a time are sorted by length and cut up, and the batches
    are shuffled again. The same seed gives the same batches.

    Args:
      sequences: The words' numbers.
      labels: The class of each.
      batch_size: Rows of every batch; the last is filled up with rows of weight 0.
      sizes: The numbers of steps that a batch may have.
      seed: Numbers that the order is made from, such as the run's seed and the epoch.

    Raises:
      ValueError: If a sequence is longer than all sizes, or there is not a label for each.
    """
    draw = np.random.default_rng(seed)
    order, lengths = draw.permutation(len(sequences)), np.array([len(one) for one in sequences])
    pools = [order[i : i + POOL * batch_size] for i in range(0, len(order), POOL * batch_size)]
    rows = [row for pool in pools for row in _cut(pool[np.argsort(lengths[pool])], batch_size)]
    for index in draw.permutation(len(rows)):
        yield padded(sequences, labels, rows[index], batch_size, sizes)


def batches_in_order(
    sequences: Sequence[Int[np.ndarray, " _"]],
    labels: Int[np.ndarray, " examples"],
    batch_size: int,
    *,
    sizes: Sequence[int],
) -> Iterator[tuple[Int[np.ndarray, " rows"], Batch]]:
    """Every sequence once, the short ones first, with the places that a batch's rows come from.

    Raises:
      ValueError: As `shuffled_batches`.
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
) -> Batch:
    """The batch of some of the sequences, padded to the least size that holds the longest.

    Raises:
      ValueError: If none does, or there is not a label for each sequence.
    """
    if len(sequences) != len(labels):
        raise ValueError(
            f"a label for each sequence is expected, got {len(labels)} for {len(sequences)}"
        )
    longest = max(len(sequences[row]) for row in rows)
    if longest > max(sizes):
        raise ValueError(
            f"sequences of {max(sizes)} steps at most are expected, got one of {longest}: cut them "
            "off, or give a larger size"
        )
    batch = Batch(
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
