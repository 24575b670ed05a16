"""The TREC question classification corpus: questions by the kind of answer they ask for."""

from collections.abc import Iterator
from pathlib import Path

from gradflow.data.files import check_split, decode, official_file
from gradflow.data.texts import Texts, collect_texts

SOURCE = "https://cogcomp.seas.upenn.edu/Data/QA/QC/"

FILES = {"train": "train_5500.label", "test": "TREC_10.label"}

CLASSES = ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")


def read_trec(data_dir: str | Path | None, split: str) -> Texts:
    """Reads the questions of one split, with their six coarse classes.

    A line of the file is ``COARSE:fine question``, in Latin-1, with spaces around all tokens.

    Args:
      data_dir: The folder of ``train_5500.label`` and ``TREC_10.label``.
      split: ``train`` or ``test``.

    Raises:
      ValueError: If there is no such split, the file is missing, a line has another form, or a
        class is unknown or has no question.

    Source: Li & Roth 2002, doi:10.3115/1072228.1072378.
    """
    check_split(split)
    path = official_file(data_dir, FILES[split], source=SOURCE)
    text = decode(path.read_bytes(), str(path), encoding="latin-1")
    return collect_texts(_lines(text, path), CLASSES, path, SOURCE)


def _lines(text: str, path: Path) -> Iterator[tuple[str, str]]:
    # Not splitlines, which also splits at characters that Latin-1 texts contain, such as \x85.
    for number, line in enumerate(text.replace("\r\n", "\n").rstrip("\n").split("\n"), 1):
        label, blank, question = line.partition(" ")
        coarse, colon, fine = label.partition(":")
        if not (blank and colon and coarse and fine):
            raise ValueError(
                f"Expected 'COARSE:fine question' in line {number} of {str(path)!r}, got "
                f"{line[:40]!r}. Download the file from {SOURCE}."
            )
        yield coarse, question
