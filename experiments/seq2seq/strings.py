"""Pairs of strings for an encoder-decoder: dates in another format, reversed digits.

Each set is generated without a file: the same pairs in every run, a tenth of which are held out.
"""

import datetime
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from gradflow.checks import check_integer

MONTHS = (
    "January February March April May June July August September October November December"
).split()
"""Their names, independent of the locale."""

NUM_FORMATS = 3

Numbers = Any
"""Integers in an array, of NumPy or JAX."""


class Pairs(NamedTuple):
    """Strings as token ids; -1 pads the short ones.

    Attributes:
      sources: What is read, (pairs, T).
      lengths: Symbols in each source, (pairs,).
      targets: What is to be written, (pairs, S).
    """

    sources: Numbers
    lengths: Numbers
    targets: Numbers

    def at(self, chosen: Int[np.ndarray, "..."]) -> "Pairs":
        """Selects pairs by their indices."""
        return Pairs(*(array[chosen] for array in self))

    def of_one_length(self, number: int) -> "Pairs":
        """Selects the first pairs whose sources have the most common length, without padding."""
        lengths = np.asarray(self.lengths)
        length = int(np.bincount(lengths).argmax())
        chosen = self.at(np.flatnonzero(lengths == length)[:number])
        return chosen._replace(sources=chosen.sources[:, :length])


class Rewriting(NamedTuple):
    """A set of source strings with their targets.

    Attributes:
      train: The training pairs.
      test: The held-out pairs; none of them is in ``train``.
      read: The symbols of the sources, sorted: id i is ``read[i]``.
      written: The symbols of the targets.
    """

    train: Pairs
    test: Pairs
    read: str
    written: str


def dates(num_formats: int = 1) -> Rewriting:
    """Generates every day from 1950 to 2049 in one of the formats, and in ISO 8601 as the target.

    The formats are ``23 Nov 2026``, ``November 23, 2026`` and ``23.11.2026``, in this order; the
    target is ``2026-11-23``.

    Raises:
      ValueError: If it is not 1, 2 or 3 formats.
    """
    if not 1 <= num_formats <= NUM_FORMATS:
        raise ValueError(f"Expected 1 to {NUM_FORMATS} formats, got {num_formats}.")
    rng = np.random.default_rng(0)
    first, last = (datetime.date(year, 1, 1).toordinal() for year in (1950, 2050))
    days = [datetime.date.fromordinal(day) for day in rng.permutation(np.arange(first, last))]
    forms = rng.integers(num_formats, size=len(days))
    sources = [_in_format(day, int(form)) for day, form in zip(days, forms, strict=True)]
    return _rewriting(sources, [day.isoformat() for day in days])


def reversal(length: int = 8, *, num_samples: int = 50_000) -> Rewriting:
    """Generates different strings of digits, and the reversed ones as targets.

    Args:
      length: Digits in each.
      num_samples: How many are sampled; duplicates are removed.

    Raises:
      TypeError: If an option is not an integer.
      ValueError: If there is no digit, or fewer than 10 strings are sampled.
    """
    check_integer("length", length, 1)
    check_integer("num_samples", num_samples, 10)
    rng = np.random.default_rng(0)
    digits = rng.permutation(np.unique(rng.integers(10, size=(num_samples, length)), axis=0))
    sources = ["".join(map(str, row)) for row in digits]
    return _rewriting(sources, [text[::-1] for text in sources])


def spelled(numbers: Int[np.ndarray, " steps"], symbols: str) -> str:
    """Decodes token ids to a string; negative ids are skipped."""
    return "".join(symbols[number] for number in numbers if number >= 0)


def _in_format(day: datetime.date, form: int) -> str:
    month = MONTHS[day.month - 1]
    return (
        f"{day.day:02d} {month[:3]} {day.year}",
        f"{month} {day.day}, {day.year}",
        f"{day.day}.{day.month}.{day.year}",
    )[form]


def _rewriting(sources: list[str], targets: list[str]) -> Rewriting:
    """The set, of which the first tenth is held out."""
    read, written = ("".join(sorted(set("".join(texts)))) for texts in (sources, targets))
    longest = max(map(len, sources))
    pairs = Pairs(
        np.array([_numbers(text, read, longest) for text in sources]),
        np.array([len(text) for text in sources]),
        np.array([_numbers(text, written, len(text)) for text in targets]),
    )
    test, train = np.split(np.arange(len(sources)), [len(sources) // 10])
    return Rewriting(pairs.at(train), pairs.at(test), read, written)


def _numbers(text: str, symbols: str, length: int) -> list[int]:
    return [symbols.index(symbol) for symbol in text] + [-1] * (length - len(text))
