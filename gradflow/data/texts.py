"""Labelled texts, the common form of all text corpora."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from gradflow.checks import shorten


class Texts(NamedTuple):
    """One split of a corpus.

    Attributes:
      texts: The texts, without markup of the file format.
      labels: The class of each text, as an index into ``classes``.
      classes: Names of the classes.
    """

    texts: tuple[str, ...]
    labels: Int[np.ndarray, " texts"]
    classes: tuple[str, ...]


def collect_texts(
    labelled: Iterable[tuple[str, str]], classes: tuple[str, ...], place: Path, source: str
) -> Texts:
    """Collects pairs (class, text), and checks that every class has at least one text.

    Args:
      labelled: The pairs.
      classes: Names of all classes.
      place: The file of the texts, for the errors.
      source: Where it is published, for the errors.

    Raises:
      ValueError: If a class is unknown or has no text, or a text is blank.
    """
    texts, labels, known = [], [], {name: number for number, name in enumerate(classes)}
    for name, text in labelled:
        if name not in known:
            raise ValueError(
                f"Expected one of the classes {', '.join(classes)}, got "
                f"{shorten(repr(name))} at text "
                f"{len(texts) + 1} of {str(place)!r}. Download it again from {source}."
            )
        if not text.strip():
            raise ValueError(
                f"Expected a text for each class label, got a blank one at text {len(texts) + 1} "
                f"of {str(place)!r}. Remove it, or download the file again from {source}."
            )
        texts.append(text)
        labels.append(known[name])
    counts = np.bincount(np.array(labels, np.int64), minlength=len(classes))
    empty = [name for name, count in zip(classes, counts, strict=True) if not count]
    if empty:
        raise ValueError(
            f"Expected texts of every class in {str(place)!r}, got none of {', '.join(empty)}. "
            f"Download the complete file from {source}."
        )
    return Texts(tuple(texts), np.array(labels, np.int32), classes)
