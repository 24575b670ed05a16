"""A text as its characters: for a model that says the next one, and for writing with it."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from gradflow.data.files import missing_file
from gradflow.data.series import not_text

TINY_SHAKESPEARE = "https://github.com/karpathy/char-rnn, data/tinyshakespeare/input.txt"
"""Where the usual text is published."""

MIN_LENGTH = 20
"""The fewest characters of which a tenth can be held out."""


class Characters(NamedTuple):
    """A text by numbers.

    Attributes:
      codes: The number of each character.
      alphabet: The distinct characters, sorted: number i is ``alphabet[i]``.
    """

    codes: Int[np.ndarray, " characters"]
    alphabet: str

    @property
    def num_trained(self) -> int:
        """How many characters come before the last tenth, which is held out."""
        return len(self.codes) - len(self.codes) // 10


class Stretches(NamedTuple):
    """A part of a text cut into stretches that are read side by side.

    Attributes:
      codes: By time and stretch.
      weights: 1 where a character is to be said, from those before it; 0 for what is read to warm
        up, and for padding.
    """

    codes: Int[np.ndarray, "steps stretches"]
    weights: Bool[np.ndarray, "steps stretches"]


def read_characters(path: str | Path, *, source: str = TINY_SHAKESPEARE) -> Characters:
    """Reads a UTF-8 text, without byte order mark and with its newlines as ``\\n``.

    Args:
      path: Of the file.
      source: Where it is published, for the errors.

    Raises:
      ValueError: If there is no such file, it is not UTF-8, or too short for a tenth to be held out
        of it.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise missing_file(path, source)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise not_text(path, error) from None
    if len(text) < MIN_LENGTH:
        raise ValueError(
            f"a text of {MIN_LENGTH} characters at least is expected in {str(path)!r}, got "
            f"{len(text)}: the file is cut short; fetch it again from {source}"
        )
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    distinct, codes = np.unique(points, return_inverse=True)
    return Characters(codes.astype(np.int32), "".join(map(chr, distinct)))


def encode(text: str, alphabet: str) -> Int[np.ndarray, " characters"]:
    """The numbers of a text's characters.

    Raises:
      ValueError: If it has a character that is not in the alphabet.
    """
    known = {character: number for number, character in enumerate(alphabet)}
    unknown = sorted(set(text) - set(known))
    if unknown:
        raise ValueError(
            f"characters of {alphabet!r} are expected, got {', '.join(map(repr, unknown))} in "
            f"{text!r}: the net has not seen them"
        )
    return np.array([known[character] for character in text], np.int32)


def as_streams(codes: Int[np.ndarray, " characters"], num_streams: int) -> Int[np.ndarray, "t b"]:
    """The text as so many equal pieces side by side, time first; what is left over is dropped.

    Raises:
      ValueError: If there are not two characters for each stream.
    """
    length = len(codes) // num_streams
    if length < 2:
        raise ValueError(
            f"two characters at least for each of {num_streams} streams are expected, got "
            f"{len(codes)} in all: take fewer streams or a longer text"
        )
    return codes[: length * num_streams].reshape(num_streams, length).T


def as_stretches(
    codes: Int[np.ndarray, " characters"], first: int, num_stretches: int, warm_up: int
) -> Stretches:
    """The text from ``first`` to its end, every character of it to be said once.

    Each stretch is read from the ``warm_up`` characters before it on, so that a carry is there when
    its own begin; what stands before the text is padding.

    Args:
      codes: The whole text.
      first: The first character that is to be said.
      num_stretches: How many stretches are read side by side.
      warm_up: How many characters before a stretch are read first, one at least.
    """
    length = -(-(len(codes) - first) // num_stretches)
    starts = first + length * np.arange(num_stretches)
    places = starts + np.arange(-warm_up, length)[:, None]
    is_own = (places >= starts) & (places < len(codes))
    return Stretches(codes[np.clip(places, 0, len(codes) - 1)], is_own)
