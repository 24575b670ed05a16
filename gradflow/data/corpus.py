"""A text corpus for training: training, validation and test parts as word ids."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from gradflow.data.texts import Texts
from gradflow.data.vocabulary import build_vocabulary


class Part(NamedTuple):
    """Some of the texts, as word ids.

    Attributes:
      sequences: The word ids of each text.
      labels: The class of each text.
    """

    sequences: list[Int[np.ndarray, " _"]]
    labels: Int[np.ndarray, " texts"]


class Corpus(NamedTuple):
    """The training, validation and test parts of a text classification corpus.

    Attributes:
      training: The part to which parameters are fitted.
      validation: The part that selects models and epochs.
      test: The part for one evaluation at the end.
      classes: Names of the classes.
      num_words: Number of word ids, including the two special ones.
    """

    training: Part
    validation: Part
    test: Part
    classes: tuple[str, ...]
    num_words: int


def make_corpus(
    train: Texts,
    test: Texts,
    *,
    seed: int,
    validation_fraction: float = 0.1,
    max_length: int,
    max_words: int,
    min_count: int = 1,
    keep: str = "start",
) -> Corpus:
    """Splits a validation part off the training texts and converts all texts to word ids.

    The vocabulary is that of the training part only. A training text that also occurs in the test
    set, word for word, is removed.

    Args:
      train: The texts for training and validation.
      test: The test texts.
      seed: Seed of the random validation part.
      validation_fraction: Fraction of the training texts in the validation part, at least one text.
      max_length: Maximal number of words of a text.
      max_words: Maximal number of word ids.
      min_count: Minimal number of occurrences of a word in the vocabulary.
      keep: Which words of a longer text are kept: those at its ``start`` or its ``end``.

    Raises:
      ValueError: If the classes differ, validation_fraction is not between 0 and 1, or fewer than
        two training texts remain.
    """
    if train.classes != test.classes:
        raise ValueError(
            f"Expected equal classes in both splits, got {train.classes} and {test.classes}. Read "
            "both from one corpus."
        )
    if not 0 < validation_fraction < 1:
        raise ValueError(
            f"Expected validation_fraction between 0 and 1, got {validation_fraction}. Set it to, "
            "for example, 0.1."
        )
    tested = set(test.texts)
    rows = np.array([row for row, text in enumerate(train.texts) if text not in tested], int)
    if len(rows) < 2:
        raise ValueError(
            f"Expected at least two training texts that are not in the test set, got {len(rows)} "
            f"of {len(train.texts)}. Use different files for training and test."
        )
    rows = np.random.default_rng(seed).permutation(rows)
    size = min(max(1, round(validation_fraction * len(rows))), len(rows) - 1)
    validation, training = rows[:size], rows[size:]
    vocabulary = build_vocabulary(
        (train.texts[row] for row in training), max_size=max_words, min_count=min_count
    )

    def part(texts: Texts, rows: np.ndarray) -> Part:
        selected = [texts.texts[row] for row in rows]
        return Part(vocabulary.encode(selected, max_length, keep=keep), texts.labels[rows])

    return Corpus(
        part(train, training),
        part(train, validation),
        part(test, np.arange(len(test.texts))),
        train.classes,
        vocabulary.size,
    )
