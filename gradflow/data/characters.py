"""Text as character ids, for models that predict the next character."""

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from gradflow.data.files import missing_file, read_text_file
from gradflow.paths import user_path

TINY_SHAKESPEARE = "https://github.com/karpathy/char-rnn, data/tinyshakespeare/input.txt"
"""Source of the text of the character-level experiments."""

MIN_LENGTH = 20
"""Minimal number of characters: a held-out tenth then has two."""


class Characters(NamedTuple):
    """A text as character ids.

    Attributes:
      codes: The id of each character.
      alphabet: The distinct characters, sorted: id i is ``alphabet[i]``.
    """

    codes: Int[np.ndarray, " characters"]
    alphabet: str

    @property
    def num_trained(self) -> int:
        """Number of characters of the training part. The last tenth of the text is held out."""
        return len(self.codes) - len(self.codes) // 10


class Segments(NamedTuple):
    """A part of a text, cut into segments that are read in parallel.

    Attributes:
      codes: Character ids.
      weights: Whether a character is a target. False in the warm-up and in the padding.
    """

    codes: Int[np.ndarray, "steps segments"]
    weights: Bool[np.ndarray, "steps segments"]


def read_characters(path: str | Path, *, source: str = TINY_SHAKESPEARE) -> Characters:
    """Reads a UTF-8 text without byte order mark, with every line break as ``\\n``.

    Args:
      path: Path of the file.
      source: Where it is published, for the errors.

    Raises:
      ValueError: If there is no such file, it is not UTF-8, or it has fewer than `MIN_LENGTH`
        characters.
    """
    path = user_path(path)
    if not path.is_file():
        raise missing_file(path, source)
    text = read_text_file(path)
    if len(text) < MIN_LENGTH:
        raise ValueError(
            f"Expected a text of at least {MIN_LENGTH} characters in {str(path)!r}, got "
            f"{len(text)}. Download the file again from {source}."
        )
    return as_characters(text)


def as_characters(text: str) -> Characters:
    """Converts a text to character ids, in a time that is linear in its length."""
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    occurs = np.zeros(sys.maxunicode + 1, bool)
    occurs[points] = True
    ids = np.cumsum(occurs, dtype=np.int32) - 1
    return Characters(ids[points], "".join(map(chr, np.flatnonzero(occurs))))


def encode(text: str, alphabet: str) -> Int[np.ndarray, " characters"]:
    """Returns the ids of the characters of a text.

    Raises:
      ValueError: If a character is not in the alphabet.
    """
    known = {character: code for code, character in enumerate(alphabet)}
    unknown = sorted(set(text) - set(known))
    if unknown:
        raise ValueError(
            f"Expected characters of {alphabet!r}, on which the network was trained, got "
            f"{', '.join(map(repr, unknown))} in {text!r}. Remove these characters."
        )
    return np.array([known[character] for character in text], np.int32)


def as_streams(codes: Int[np.ndarray, " characters"], num_streams: int) -> Int[np.ndarray, "t b"]:
    """Cuts a text into num_streams pieces of equal length, time-major; drops the remainder.

    Raises:
      ValueError: If there are fewer than two characters for each stream.
    """
    length = len(codes) // num_streams
    if length < 2:
        raise ValueError(
            f"Expected at least two characters for each of {num_streams} streams, got {len(codes)} "
            "in total. Use fewer streams or a longer text."
        )
    return codes[: length * num_streams].reshape(num_streams, length).T


def as_segments(
    codes: Int[np.ndarray, " characters"], first: int, num_segments: int, warm_up: int
) -> Segments:
    """Cuts the text from ``first`` to its end into segments; every character is a target once.

    Each segment starts ``warm_up`` characters early, so that the network has read some text before
    its first target. Positions before the text are padding.

    Args:
      codes: The whole text.
      first: Position of the first target.
      num_segments: Number of segments.
      warm_up: Number of characters before a segment that are read first, at least 1.
    """
    length = -(-(len(codes) - first) // num_segments)
    starts = first + length * np.arange(num_segments)
    positions = starts + np.arange(-warm_up, length)[:, None]
    is_target = (positions >= starts) & (positions < len(codes))
    return Segments(codes[np.clip(positions, 0, len(codes) - 1)], is_target)
