"""AG News: titles and first sentences of news articles, in four classes."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from gradflow.data.files import check_split, decode, official_file
from gradflow.data.texts import Texts, collect_texts

SOURCE = "https://github.com/mhjabreel/CharCNN (data/ag_news_csv)"

CLASSES = ("World", "Sports", "Business", "Sci/Tech")

HEADER = ["label", "content"]
"""The header of subsets published by others, whose rows have a description and no title."""


def read_ag_news(
    data_dir: str | Path | None, split: str, *, name: str | None = None, titles: bool = True
) -> Texts:
    """Reads the news of one split, or of another file in one of two formats.

    The official files have no header, and rows with class (1 to 4), title and description. A file
    whose first line is ``label,content`` has rows with class (1 to 4) and description. A backslash
    in a text means a line break.

    Args:
      data_dir: Folder of ``train.csv`` and ``test.csv``.
      split: ``train`` or ``test``.
      name: Another file in that folder, to be read in place of the split's.
      titles: Whether the title is a part of the text. It has no effect on files without titles.

    Raises:
      ValueError: If there is no such split, the file is missing, not UTF-8 or not CSV, a row has
        missing columns, or a class is unknown or has no text.

    Source: Zhang, Zhao, LeCun 2015, arXiv:1509.01626.
    """
    check_split(split)
    path = official_file(data_dir, name or f"{split}.csv", source=SOURCE)
    text = decode(path.read_bytes(), str(path))
    return collect_texts(_rows(text, path, titles), CLASSES, path, SOURCE)


def _rows(text: str, path: Path, titles: bool) -> Iterator[tuple[str, str]]:
    width, numbers = 3, {str(n): name for n, name in enumerate(CLASSES, 1)}
    try:
        for number, row in enumerate(csv.reader(io.StringIO(text, newline=""), strict=True), 1):
            if number == 1 and row == HEADER:
                width = len(HEADER)
                continue
            if len(row) != width:
                columns = "class, title, description" if width == 3 else ", ".join(HEADER)
                raise ValueError(
                    f"Expected the {width} columns {columns} in row {number} of {str(path)!r}, got "
                    f"{len(row)}. Download the file from {SOURCE}."
                )
            parts = row[1:] if titles else row[-1:]
            yield numbers.get(row[0], row[0]), " ".join(parts).replace("\\", " ")
    except csv.Error as error:
        raise ValueError(
            f"Expected a CSV file at {str(path)!r}, but it cannot be read as CSV: {error}. Close "
            f"any open quote, or download the file again from {SOURCE}."
        ) from None
