"""Labelled texts: what every corpus becomes once it is read."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int


class Texts(NamedTuple):
    """One split of a corpus.

    Attributes:
      texts: As they are published, but for marks of the file's format.
      labels: The class of each, as its place in ``classes``.
      classes: Their names.
    """

    texts: tuple[str, ...]
    labels: Int[np.ndarray, " texts"]
    classes: tuple[str, ...]


def gathered(
    labelled: Iterable[tuple[str, str]], classes: tuple[str, ...], place: Path, source: str
) -> Texts:
    """Puts pairs of a class and a text together, each class with an example at least.

    Args:
      labelled: The pairs.
      classes: The names of all classes.
      place: Where they were read, for the errors.
      source: Where that is published, for the errors.

    Raises:
      ValueError: If a class is unknown or has no text, or a text is blank.
    """
    texts, labels, known = [], [], {name: number for number, name in enumerate(classes)}
    for name, text in labelled:
        if name not in known:
            raise ValueError(
                f"one of the classes {', '.join(classes)} is expected, got {name!r} at text "
                f"{len(texts) + 1} of {str(place)!r}; fetch it again from {source}"
            )
        if not text.strip():
            raise ValueError(
                f"a text is expected beside each class, got a blank one at text {len(texts) + 1} "
                f"of {str(place)!r}: leave it out, or fetch it again from {source}"
            )
        texts.append(text)
        labels.append(known[name])
    counts = np.bincount(np.array(labels, np.int64), minlength=len(classes))
    empty = [name for name, count in zip(classes, counts, strict=True) if not count]
    if empty:
        raise ValueError(
            f"texts of every class are expected in {str(place)!r}, got none of {', '.join(empty)}: "
            f"the file is a part of the published; fetch it again from {source}"
        )
    return Texts(tuple(texts), np.array(labels, np.int32), classes)


def check_split(split: str) -> None:
    """Checks the name of a split.

    Raises:
      ValueError: If it is neither ``train`` nor ``test``.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split is expected to be 'train' or 'test', got {split!r}")
