"""The Large Movie Review Dataset (IMDb), from its folder or directly from its archive."""

import gzip
import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gradflow.data.files import check_split, damaged_file, decode, missing_file
from gradflow.data.texts import Texts, collect_texts

SOURCE = "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"

CLASSES = ("neg", "pos")

ARCHIVES = ("aclImdb_v1.tar.gz", "aclImdb*.tar.gz")

CHUNK = 1 << 20
"""Bytes that are read at once to verify the rest of an archive."""

_PLACE = re.compile(r"(?:^|/)(train|test)/(neg|pos)/(\d+)_(\d+)\.txt$")


class Review(NamedTuple):
    """One review.

    Attributes:
      name: ``neg`` or ``pos``.
      number: Its number within its split and class.
      text: The text, without HTML line breaks.
    """

    name: str
    number: int
    text: str


def read_imdb(data_dir: str | Path | None, split: str) -> Texts:
    """Reads the labelled reviews of one split, sorted by class, negative first, and number.

    Args:
      data_dir: The folder of ``aclImdb_v1.tar.gz`` or of its content ``aclImdb/``, or
        ``aclImdb`` itself. An archive is read as a stream, without unpacking it.
      split: ``train`` or ``test``.

    Raises:
      ValueError: If there is no such split, the folder has neither, the archive is truncated or
        corrupt, a review is blank or not UTF-8, or a class has no review.

    Source: Maas et al. 2011, https://aclanthology.org/P11-1015.
    """
    check_split(split)
    place = find_imdb(data_dir)
    reviews = sorted(_streamed(place, split) if place.is_file() else _listed(place, split))
    return collect_texts(((name, text) for name, _, text in reviews), CLASSES, place, SOURCE)


def find_imdb(data_dir: str | Path | None) -> Path:
    """Finds the archive of the reviews, or the folder that it was unpacked to.

    Raises:
      ValueError: If the folder has neither.
    """
    if data_dir is None:
        raise ValueError(
            "Expected a folder with aclImdb/ or aclImdb_v1.tar.gz, got none. Download the archive "
            f"from {SOURCE} and set data_dir to its folder."
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
            # A truncated tar archive may go unnoticed; reading to its end verifies the checksum of
            # the gzip format.
            while packed.read(CHUNK):
                pass
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise damaged_file(archive, "a tar archive under gzip", error, SOURCE) from None


def _review(place: re.Match, data: bytes, path: str) -> Review:
    text = decode(data, path, encoding="utf-8").replace("<br />", " ")
    return Review(place[2], int(place[3]), text)
