"""Series of numbers in CSV files: one column, and the times beside it where a file has them."""

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np
from jaxtyping import Float, Shaped

DELIMITERS = ",;\t"


class Series(NamedTuple):
    """One quantity over time.

    Attributes:
      values: The numbers, in the units of the file.
      times: When each was measured, as ``datetime64``; None where no column of times was named.
    """

    values: Float[np.ndarray, " steps"]
    times: Shaped[np.ndarray, " steps"] | None = None


class _Place(NamedTuple):
    """Where a field stands: the file, its line, and whether the first line names the columns."""

    path: Path
    line: int
    has_header: bool

    def __str__(self) -> str:
        header = " (the header is row 1)" if self.has_header else ""
        return f"row {self.line} of {str(self.path)!r}{header}"


def read_series(path: Path, column: str, *, times: Sequence[str] = ()) -> Series:
    """Reads one column of a CSV file.

    Fields are separated by commas, semicolons or tabs, whichever the first line has most of.
    Blank lines are left out.

    Args:
      path: The file.
      column: Its name in the first line; or, where that has numbers alone, its number, from 1.
      times: The columns that say when, named likewise; several, such as year and month, are
        joined by ``-`` to a date of ISO 8601.

    Raises:
      ValueError: If the file is not a CSV file of text, has no such column, or a row has no
        finite number in it, no date, or a date that is not after the one before it.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(_fields(file, path, [column, *times]))
    except UnicodeDecodeError as error:
        raise not_text(path, error) from None
    except csv.Error as error:
        raise ValueError(
            f"a CSV file is expected, but {str(path)!r} cannot be read as one: {error}; "
            "look for a quote that is not closed"
        ) from None
    values = np.array([_number(fields[0], place) for fields, place in rows], float)
    if not times:
        return Series(values)
    return Series(values, _ascending([_time(fields[1:], place) for fields, place in rows], path))


def not_text(path: Path, error: UnicodeDecodeError) -> ValueError:
    """The error for a file that holds other bytes than UTF-8 text."""
    return ValueError(
        f"UTF-8 text is expected in {str(path)!r}, got the byte {error.object[error.start]:#04x} "
        "that is none: it is a binary file, or text to be converted to UTF-8"
    )


def _fields(file: TextIO, path: Path, columns: Sequence[str]) -> Iterator[tuple[list[str], _Place]]:
    """The fields asked for, of each row, and where the row stands."""
    first = file.readline()
    file.seek(0)
    rows = csv.reader(file, delimiter=max(DELIMITERS, key=first.count))
    names = [name.strip() for name in next(rows, [])]
    numbered = all(column.isdecimal() for column in columns)
    has_header = not (numbered and all(map(_is_number, names)))
    known = names if has_header else [str(number + 1) for number in range(len(names))]
    for column in columns:
        if column not in known:
            which = ", ".join(names) if has_header else f"numbered 1 to {len(names)}"
            raise ValueError(
                f"there is no column {column!r} in {str(path)!r}; its columns are {which}"
            )
    places = [known.index(column) for column in columns]
    if not has_header:
        yield [names[place] for place in places], _Place(path, rows.line_num, has_header)
    for row in rows:
        if row:
            where = _Place(path, rows.line_num, has_header)
            yield [row[place] if place < len(row) else "" for place in places], where


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number(text: str, place: _Place) -> float:
    if not _is_number(text) or not math.isfinite(float(text)):
        raise ValueError(
            f"a finite number is expected in {place}, got {text!r}; mend or remove that row"
        )
    return float(text)


def _time(fields: Sequence[str], place: _Place) -> np.datetime64:
    text = "-".join(field.strip() for field in fields)
    try:
        return np.datetime64(text, "s")
    except ValueError:
        raise ValueError(
            f"a date such as 2014-01-31 is expected in {place}, got {text!r}; write it so"
        ) from None


def _ascending(times: list[np.datetime64], path: Path) -> Shaped[np.ndarray, " steps"]:
    found = np.array(times, "datetime64[s]")
    wrong = np.flatnonzero(found[1:] <= found[:-1])
    if len(wrong):
        before, after = found[wrong[0] : wrong[0] + 2]
        raise ValueError(
            f"dates in ascending order are expected in {str(path)!r}, got {after} after {before}: "
            "sort the rows, and leave each date once"
        )
    return found
