"""Progress bars, and tables of plain text."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from gradflow.processes import is_first

T = TypeVar("T")


def progress(iterable: Iterable[T], description: str) -> Iterable[T]:
    """Shows the progress of an iteration: a bar on a terminal, nothing in a pipe.

    Of several processes that run one program, the first one shows it.
    """
    if not sys.stderr.isatty() or not is_first():
        return iterable
    from tqdm import tqdm

    return tqdm(iterable, desc=description)


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Writes rows as plain text in columns: numbers right-aligned, words left-aligned.

    The columns are all the keys, in the order in which they first occur; a row may lack some.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = [_column(name, [row.get(name, "") for row in rows]) for name in names]
    return "\n".join("  ".join(cells).rstrip() for cells in zip(*columns, strict=True))


def _column(name: str, cells: list[str]) -> list[str]:
    width = max(len(cell) for cell in [name, *cells])
    place = str.rjust if all(_is_number(cell) for cell in cells if cell) else str.ljust
    return [place(name, width), "-" * width, *(place(cell, width) for cell in cells)]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
