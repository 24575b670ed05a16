"""Time series in CSV files: one column of numbers, and the dates if the file has them."""

import csv
import io
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from gradflow.checks import shorten
from gradflow.data.files import decode

DELIMITERS = ",;\t"

# float() also takes 1_000, infinity and digits of other scripts, and NumPy takes "now" as a date
# and an empty one as "not a time".
_NUMBER = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*")
_DATE = re.compile(r"[0-9]{4}(-[0-9]{2}(-[0-9]{2}([ T][0-9]{2}(:[0-9]{2}(:[0-9]{2})?)?)?)?)?")


class Series(NamedTuple):
    """One quantity over time.

    Attributes:
      values: The numbers, in the units of the file.
      times: The date of each value, as ``datetime64``; None if no column of dates was given.
    """

    values: Float[np.ndarray, " steps"]
    times: Shaped[np.ndarray, " steps"] | None = None


class _Row(NamedTuple):
    """The position of a row, for errors: the file, the line, and whether the file has a header."""

    path: Path
    line: int
    has_header: bool

    def __str__(self) -> str:
        header = " (the header is row 1)" if self.has_header else ""
        return f"row {self.line} of {str(self.path)!r}{header}"


def read_series(path: Path, column: str, *, times: Sequence[str] = ()) -> Series:
    """Reads one column of a CSV file.

    The separator is the most frequent of comma, semicolon and tab in the first line. Blank lines
    are skipped. All other rows must have the same number of fields. Numbers have a decimal point
    and no thousands separators.

    Args:
      path: Path of the file.
      column: The column's name in the header or, in a file without header, its number from 1.
      times: The columns of the date, given in the same way. Several, such as year and month, are
        joined by ``-`` to an ISO 8601 date.

    Raises:
      ValueError: If the file is not UTF-8 or not CSV, has no such column, two of this name or no
        rows, or a row has another number of fields, no finite number, no date, or a date that is
        not after the previous one.
    """
    # The csv module needs the line breaks as they are, because a quoted field may contain some.
    file = io.StringIO(decode(path.read_bytes(), str(path)), newline="")
    try:
        rows = list(_fields(file, path, [column, *times]))
    except csv.Error as error:
        raise ValueError(
            f"Expected a CSV file, but {str(path)!r} cannot be read as CSV: {error}. Close any "
            "open quote."
        ) from None
    if not rows:
        raise ValueError(
            f"Expected rows of numbers in {str(path)!r}, got none. Choose another file."
        )
    values = np.array([_number(fields[0], place) for fields, place in rows], float)
    if not times:
        return Series(values)
    return Series(values, _ascending([_time(fields[1:], place) for fields, place in rows], path))


def _fields(
    file: io.StringIO, path: Path, columns: Sequence[str]
) -> Iterator[tuple[list[str], _Row]]:
    """Yields the fields of the given columns for each row, and the position of the row."""
    first = file.readline()
    file.seek(0)
    rows = csv.reader(file, delimiter=max(DELIMITERS, key=first.count), strict=True)
    names = [name.strip() for name in next(rows, [])]
    numbered = all(column.isdecimal() for column in columns)
    has_header = not (numbered and all(map(_is_number, names)))
    known = names if has_header else [str(number + 1) for number in range(len(names))]
    places = [_place(column, known, has_header, path) for column in columns]
    if not has_header:
        yield [names[place] for place in places], _Row(path, rows.line_num, has_header)
    for row in rows:
        if not row:
            continue
        where = _Row(path, rows.line_num, has_header)
        if len(row) != len(names):
            raise ValueError(
                f"Expected {len(names)} fields in {where}, as in row 1, got {len(row)}. Write "
                "decimal points, not commas, and put texts that contain a separator in quotes."
            )
        yield [row[place] for place in places], where


def _place(column: str, known: Sequence[str], has_header: bool, path: Path) -> int:
    if known.count(column) != 1:
        which = ", ".join(known) if has_header else f"numbered 1 to {len(known)}"
        fix = "Rename all but one of them" if column in known else "Choose one of these"
        raise ValueError(
            f"Expected a column of {str(path)!r}, which are {shorten(which)}, got {column!r}"
            f"{', the name of several' * (column in known)}. {fix}."
        )
    return known.index(column)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number(text: str, place: _Row) -> float:
    if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        raise ValueError(
            f"Expected a finite number in {place}, got {shorten(repr(text))}. "
            "Correct or remove that row."
        )
    return float(text)


def _time(fields: Sequence[str], place: _Row) -> np.datetime64:
    text = "-".join(field.strip() for field in fields)
    try:
        if _DATE.fullmatch(text):
            return np.datetime64(text, "s")
    except ValueError:  # such as the 31st of February
        pass
    raise ValueError(
        f"Expected a date such as 2014-01-31 in {place}, got "
        f"{shorten(repr(text))}. Write it in this format."
    )


def _ascending(times: list[np.datetime64], path: Path) -> Shaped[np.ndarray, " steps"]:
    found = np.array(times, "datetime64[s]")
    wrong = np.flatnonzero(found[1:] <= found[:-1])
    if len(wrong):
        before, after = found[wrong[0] : wrong[0] + 2]
        raise ValueError(
            f"Expected dates in ascending order in {str(path)!r}, got {after} after {before}. Sort "
            "the rows and remove repeated dates."
        )
    return found
