"""The reviews of the Large Movie Review Dataset, from its folder or straight from its archive."""

import gzip
import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gradflow.data.files import damaged_file, decoded, missing_file
from gradflow.data.texts import Texts, check_split, gathered

SOURCE = "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"

CLASSES = ("neg", "pos")

ARCHIVES = ("aclImdb_v1.tar.gz", "aclImdb*.tar.gz")

CHUNK = 1 << 20
"""Bytes that are read at once where nothing of them is kept."""

_PLACE = re.compile(r"(?:^|/)(train|test)/(neg|pos)/(\d+)_(\d+)\.txt$")


class Review(NamedTuple):
    """One review.

    Attributes:
      name: ``neg`` or ``pos``.
      number: Its number among those of its split and class.
      text: What it says, without the marks of line ends.
    """

    name: str
    number: int
    text: str


def read_imdb(data_dir: str | Path | None, split: str) -> Texts:
    """Reads the labelled reviews of one split, the negative ones first, by their numbers.

    Args:
      data_dir: The folder of ``aclImdb_v1.tar.gz`` or of what was in it, ``aclImdb/``, or
        ``aclImdb`` itself. An archive is read as a stream and not unpacked.
      split: ``train`` or ``test``.

    Raises:
      ValueError: If the split is another, neither is there, the archive is cut short or
        corrupt, a review is not UTF-8 or is blank, or a class has none.

    Source: Maas et al. 2011, https://aclanthology.org/P11-1015.
    """
    check_split(split)
    place = _find(data_dir)
    reviews = sorted(_streamed(place, split) if place.is_file() else _listed(place, split))
    return gathered(((name, text) for name, _, text in reviews), CLASSES, place, SOURCE)


def _find(data_dir: str | Path | None) -> Path:
    if data_dir is None:
        raise ValueError(
            "a folder with aclImdb/ or aclImdb_v1.tar.gz is expected, got none: fetch the archive "
            f"from {SOURCE} and name its folder by data_dir"
        )
    folder = Path(data_dir).expanduser()
    for place in (folder / "aclImdb", folder):
        if (place / "train").is_dir() or (place / "test").is_dir():
            return place
    for pattern in ARCHIVES:
        for place in sorted(folder.glob(pattern)):
            return place
    raise missing_file(folder / "aclImdb_v1.tar.gz", SOURCE)


def _listed(folder: Path, split: str) -> Iterator[Review]:
    for path in folder.glob(f"{split}/*/*.txt"):
        if place := _PLACE.search(path.as_posix()):
            yield _review(place, path.read_bytes(), str(path))


def _streamed(archive: Path, split: str) -> Iterator[Review]:
    try:
        with gzip.open(archive) as packed, tarfile.open(fileobj=packed, mode="r|") as stream:
            for member in stream:
                place = _PLACE.search(member.name)
                file = stream.extractfile(member) if place and place[1] == split else None
                if place and file:
                    yield _review(place, file.read(), member.name)
            while packed.read(CHUNK):  # a tar may end early unnoticed, but a gzip has a checksum
                pass
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise damaged_file(archive, "a tar archive under gzip", error, SOURCE) from None


def _review(place: re.Match, data: bytes, path: str) -> Review:
    text = decoded(data, path, encoding="utf-8").replace("<br />", " ")
    return Review(place[2], int(place[3]), text)
