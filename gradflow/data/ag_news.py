"""AG News: the titles and first sentences of news, in four classes."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from gradflow.data.files import decoded, official_file
from gradflow.data.texts import Texts, check_split, gathered

SOURCE = "https://github.com/mhjabreel/CharCNN (data/ag_news_csv)"

CLASSES = ("World", "Sports", "Business", "Sci/Tech")

HEADER = ["label", "content"]
"""Of subsets that others published, whose rows have a description and no title."""


def read_ag_news(
    data_dir: str | Path | None, split: str, *, name: str | None = None, titles: bool = True
) -> Texts:
    """Reads the news of one split, or of a file of another name that is in one of two forms.

    The official files have no header, and rows of class 1 to 4, title, description. A file
    whose first line is ``label,content`` has rows of class 1 to 4 and description alone. A
    backslash stands for a line's end.

    Args:
      data_dir: The folder of ``train.csv`` and ``test.csv``.
      split: ``train`` or ``test``.
      name: Another file of that folder to read in place of the split's.
      titles: Whether a title is part of the text; of no effect where there are none.

    Raises:
      ValueError: If the split is another, the file is missing, not UTF-8 or no such CSV, a row
        has not its columns, or a class is unknown or has no news.

    Source: Zhang, Zhao, LeCun 2015, arXiv:1509.01626.
    """
    check_split(split)
    path = official_file(data_dir, name or f"{split}.csv", source=SOURCE)
    text = decoded(path.read_bytes(), str(path))
    return gathered(_rows(text, path, titles), CLASSES, path, SOURCE)


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
                    f"the {width} columns {columns} are expected in row {number} of {str(path)!r}, "
                    f"got {len(row)}; fetch the file from {SOURCE}"
                )
            parts = row[1:] if titles else row[-1:]
            yield numbers.get(row[0], row[0]), " ".join(parts).replace("\\", " ")
    except csv.Error as error:
        raise ValueError(
            f"a CSV file is expected in {str(path)!r}, but it cannot be read as one: {error}; look "
            f"for a quote that is not closed, or fetch it again from {SOURCE}"
        ) from None
