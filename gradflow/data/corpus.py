"""A corpus made ready for training: what is learnt, what is kept out of it, and what is tested."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from gradflow.data.texts import Texts
from gradflow.data.vocabulary import build_vocabulary


class Part(NamedTuple):
    """Some of the texts, as the numbers of their words.

    Attributes:
      sequences: One array of numbers a text.
      labels: The class of each.
    """

    sequences: list[Int[np.ndarray, " _"]]
    labels: Int[np.ndarray, " texts"]


class Corpus(NamedTuple):
    """What is learnt, by what is chosen, and on what it is tested.

    Attributes:
      fitted: What parameters are fitted to.
      kept_out: What models and epochs are chosen by.
      test: What is looked at once, at the end.
      classes: Their names.
      num_words: Numbers of words, the two special ones among them.
    """

    fitted: Part
    kept_out: Part
    test: Part
    classes: tuple[str, ...]
    num_words: int


def make_corpus(
    train: Texts,
    test: Texts,
    *,
    seed: int,
    share: float = 0.1,
    max_length: int,
    max_words: int,
    min_count: int = 1,
    keep: str = "start",
) -> Corpus:
    """Keeps a random share of the training texts out, and numbers the words of what is left.

    A training text that stands in the test set, word for word, is left out of both parts.

    Args:
      train: The texts to learn from.
      test: The texts to test on.
      seed: Draws what is kept out.
      share: How much of the training texts that is; one text at least.
      max_length: The most words of a text.
      max_words: The most numbers of words.
      min_count: How often a word must occur to have one.
      keep: Which words of a longer text: those at its ``start`` or at its ``end``.

    Raises:
      ValueError: If the classes differ, the share is not between 0 and 1, or fewer than two
        texts are left to learn from.
    """
    if train.classes != test.classes:
        raise ValueError(
            f"the same classes are expected in both splits, got {train.classes} and {test.classes}"
        )
    if not 0 < share < 1:
        raise ValueError(f"share is expected between 0 and 1, got {share}")
    tested = set(test.texts)
    rows = np.array([row for row, text in enumerate(train.texts) if text not in tested], int)
    if len(rows) < 2:
        raise ValueError(
            f"two texts to learn from are expected at least, got {len(rows)} of "
            f"{len(train.texts)} that are not tested as well: are the two files one?"
        )
    rows = np.random.default_rng(seed).permutation(rows)
    kept_out, fitted = np.split(rows, [min(max(1, round(share * len(rows))), len(rows) - 1)])
    vocabulary = build_vocabulary(
        (train.texts[row] for row in fitted), max_size=max_words, min_count=min_count
    )

    def part(texts: Texts, rows: np.ndarray) -> Part:
        chosen = [texts.texts[row] for row in rows]
        return Part(vocabulary.encode(chosen, max_length, keep=keep), texts.labels[rows])

    return Corpus(
        part(train, fitted),
        part(train, kept_out),
        part(test, np.arange(len(test.texts))),
        train.classes,
        vocabulary.size,
    )
