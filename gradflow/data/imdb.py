"""The Large Movie Review Dataset (IMDb), from its folder or directly from its archive."""

import gzip
import io
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gradflow.data.files import MAX_BYTES, check_split, damaged_file, decode, missing_file
from gradflow.data.texts import Texts, collect_texts
from gradflow.paths import check_inside, user_path

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
    folder = user_path(data_dir)
    for place in (folder / "aclImdb", folder):
        if (place / "train").is_dir() or (place / "test").is_dir():
            return check_inside(place, folder)
    for pattern in ARCHIVES:
        for place in sorted(folder.glob(pattern)):
            return check_inside(place, folder)
    raise missing_file(folder / "aclImdb_v1.tar.gz", SOURCE)


def _listed(folder: Path, split: str) -> Iterator[Review]:
    for path in folder.glob(f"{split}/*/*.txt"):
        if (place := _PLACE.search(path.as_posix())) and path.is_file():
            yield _review(place, check_inside(path, folder).read_bytes(), str(path))


def _streamed(archive: Path, split: str) -> Iterator[Review]:
    for name, data in _members(archive, split):
        if place := _PLACE.search(name):
            yield _review(place, data, name)


def _members(archive: Path, split: str) -> Iterator[tuple[str, bytes]]:
    """Yields the name and the content of the files of a split."""
    try:
        with gzip.open(archive) as packed:
            limited = _Limited(packed)
            with tarfile.open(fileobj=limited, mode="r|") as stream:
                for member in stream:
                    place = _PLACE.search(member.name)
                    file = stream.extractfile(member) if place and place[1] == split else None
                    if file:
                        yield member.name, file.read()
                # A truncated tar archive may go unnoticed; reading to its end verifies the checksum
                # of the gzip format.
                while limited.read(CHUNK):
                    pass
    except Exception as error:  # a damaged tar header raises errors of many types
        raise damaged_file(archive, "a tar archive under gzip", error, SOURCE) from None


class _Limited(io.RawIOBase):
    """A compressed file that is read up to `MAX_BYTES`: beyond that it is no data set."""

    def __init__(self, packed: io.BufferedIOBase) -> None:
        self.packed, self.left = packed, MAX_BYTES

    def read(self, size: int = -1, /) -> bytes:
        data = self.packed.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise ValueError(f"more than {MAX_BYTES} bytes once decompressed")
        return data


def _review(place: re.Match, data: bytes, path: str) -> Review:
    text = decode(data, path, encoding="utf-8").replace("<br />", " ")
    return Review(place[2], int(place[3]), text)
