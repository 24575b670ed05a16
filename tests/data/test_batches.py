"""Vocabularies and padded batches: every text once, and zeros in the padding."""

import numpy as np
import pytest

from gradflow.data.batches import batches_in_order, bucket_sizes, padded, shuffled_batches
from gradflow.data.vocabulary import build_vocabulary

TEXTS = ("The cat's hat.", "the THE dog", "a dog")


def test_words_are_sorted_by_frequency_and_then_alphabetically():
    vocabulary = build_vocabulary(TEXTS, max_size=100)
    assert vocabulary.words[:4] == ("[PAD]", "[UNK]", "the", "dog")
    assert vocabulary.words[4:] == ("'", ".", "a", "cat", "hat", "s")
    assert vocabulary.size == 10


def test_texts_are_encoded_and_truncated_at_either_end():
    vocabulary = build_vocabulary(TEXTS, max_size=100, min_count=2)
    assert vocabulary.words == ("[PAD]", "[UNK]", "the", "dog")
    texts = ["The dog, the end", "", "[PAD]"]
    found = [one.tolist() for one in vocabulary.encode(texts, 9)]
    assert found == [[2, 3, 1, 2, 1], [1], [1, 1, 1]]  # no text can say that it is padding
    assert [one.tolist() for one in vocabulary.encode(texts[:1], 2)] == [[2, 3]]
    assert [one.tolist() for one in vocabulary.encode(texts[:1], 2, keep="end")] == [[2, 1]]
    assert build_vocabulary(TEXTS, max_size=3).words == ("[PAD]", "[UNK]", "the")


def test_bad_arguments_of_a_vocabulary_raise():
    with pytest.raises(ValueError, match="Expected max_size to be at least 3, got 2"):
        build_vocabulary(TEXTS, max_size=2)
    with pytest.raises(ValueError, match="Expected words that occur at least 9 times, got none"):
        build_vocabulary(TEXTS, max_size=9, min_count=9)
    vocabulary = build_vocabulary(TEXTS, max_size=9)
    with pytest.raises(ValueError, match="Expected max_length to be at least 1, got 0"):
        vocabulary.encode(TEXTS, 0)
    with pytest.raises(ValueError, match="Expected keep to be 'start' or 'end', got 'all'"):
        vocabulary.encode(TEXTS, 3, keep="all")


def sequences_of(count, longest, seed=0):
    draw = np.random.default_rng(seed)
    lengths = draw.integers(1, longest + 1, count)
    return [draw.integers(2, 99, length, dtype=np.int32) for length in lengths]


def rows_of(batch):
    """Yields the sequences of a batch with their labels, where the weight is not zero."""
    for column in np.flatnonzero(batch.weights):
        length = batch.lengths[column]
        np.testing.assert_array_equal(batch.ids[length:, column], 0)
        yield tuple(batch.ids[:length, column]), int(batch.labels[column])


def test_epoch_contains_every_sequence_once_with_its_label():
    sequences, labels = sequences_of(151, 20), np.arange(151)
    batches = list(shuffled_batches(sequences, labels, 4, sizes=(5, 10, 20), seed=(0, 1)))
    found = [row for batch in batches for row in rows_of(batch)]
    expected = [(tuple(one), label) for one, label in zip(sequences, labels, strict=True)]
    assert sorted(found) == sorted(expected) and found != expected
    assert {batch.ids.shape for batch in batches} == {(5, 4), (10, 4), (20, 4)}
    assert sum(batch.weights.sum() for batch in batches) == 151
    real, steps = sum(map(len, sequences)), sum(batch.ids.size for batch in batches)
    assert real / steps > 0.7  # without an order by length it is about a half


def test_order_depends_on_the_seed():
    sequences, labels = sequences_of(30, 9), np.arange(30)

    def order(*seed):
        return np.concatenate(
            [b.labels for b in shuffled_batches(sequences, labels, 8, sizes=(9,), seed=seed)]
        )

    np.testing.assert_array_equal(order(0, 1), order(0, 1))
    assert not np.array_equal(order(0, 1), order(0, 2))


def test_batches_in_order_return_the_rows_they_came_from():
    sequences, labels = sequences_of(21, 9), np.arange(21)
    rows, batches = zip(*batches_in_order(sequences, labels, 4, sizes=(9,)), strict=True)
    assert sorted(np.concatenate(rows)) == list(range(21))
    for own, batch in zip(rows, batches, strict=True):
        np.testing.assert_array_equal(batch.labels[: len(own)], labels[own])
        assert batch.weights.sum() == len(own) and batch.lengths.min() >= 1


def test_bucket_sizes_end_with_max_length():
    assert bucket_sizes(40, count=3) == (14, 27, 40)
    assert bucket_sizes(2, count=4) == (1, 2)
    with pytest.raises(ValueError, match="Expected max_length to be at least 1, got 0"):
        bucket_sizes(0)


def test_bad_arguments_of_a_batch_raise():
    sequences = sequences_of(3, 9)
    with pytest.raises(ValueError, match="Expected sequences of at most 2 steps, got one of"):
        padded(sequences, np.arange(3), np.arange(3), 4, sizes=(1, 2))
    with pytest.raises(ValueError, match="Expected a label for each of 3 sequences, got 2"):
        padded(sequences, np.arange(2), np.arange(3), 4, sizes=(9,))
