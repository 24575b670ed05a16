"""Published files: their lookup and verification, and errors that name their source."""

import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path

from gradflow.checks import shorten
from gradflow.paths import check_inside, user_path

MAX_BYTES = 1 << 30
"""Largest decompressed size of a file. The largest published one is an archive of 0.5 GB."""


def official_file(
    data_dir: str | Path | None,
    name: str,
    *,
    source: str,
    size: int | None = None,
) -> Path:
    """Finds a published file in a folder, and verifies its size.

    Args:
      data_dir: The folder. None is an error that names the missing file.
      name: The name of the file.
      source: Where it is published.
      size: Its size in bytes, if known.

    Returns:
      The path of the file.

    Raises:
      ValueError: If the folder or the file is missing, the file is a link to a place outside of
        the folder, or it is not the published one.
    """
    if data_dir is None:
        raise ValueError(
            f"Expected a folder with the file {name!r}, got none. Download the file from {source} "
            "and set data_dir to its folder."
        )
    folder = user_path(data_dir)
    path = folder / name
    if not path.is_file():
        raise missing_file(path, source)
    check_inside(path, folder)
    found = path.stat().st_size
    if size is not None and found != size:
        raise ValueError(
            f"Expected {size} bytes in {str(path)!r}, got {found}. Download it again from {source}."
        )
    return path


def missing_file(path: Path, source: str) -> ValueError:
    """Makes the error for a missing published file."""
    got = "a folder without it" if path.parent.is_dir() else "no such folder"
    return ValueError(
        f"Expected the file {path.name!r} in {str(path.parent)!r}, got {got}. Download it from "
        f"{source}."
    )


def damaged_file(path: Path, kind: str, error: object, source: str) -> ValueError:
    """Makes the error for a published file that cannot be read in its format."""
    return ValueError(
        f"Expected {kind} at {str(path)!r}, but it is truncated or corrupt: "
        f"{shorten(error)}. Download it again from {source}."
    )


@contextlib.contextmanager
def opened(path: Path, *, source: str) -> Iterator[io.BufferedIOBase]:
    """Opens a file for reading; a name that ends in .gz means gzip compression.

    The format's checksum is verified when the end of the file is read. Read at most `MAX_BYTES`: a
    compressed file can be a thousand times larger than it looks.

    Raises:
      ValueError: If a compressed file is truncated, its checksum is wrong, or it is not a gzip
        file.
    """
    if path.suffix != ".gz":
        with path.open("rb") as file:
            yield file
        return
    try:
        with gzip.open(path) as file:
            yield file
    except (EOFError, OSError, zlib.error) as error:
        raise damaged_file(path, "a gzip file", error, source) from None


def read_text_file(path: Path) -> str:
    """Reads a UTF-8 text, without byte order mark and with every line break as ``\\n``.

    Raises:
      ValueError: If the file is not UTF-8.
    """
    return io.StringIO(decode(path.read_bytes(), str(path)), newline=None).getvalue()


def decode(data: bytes, place: str, *, encoding: str = "utf-8-sig") -> str:
    """Decodes the bytes of a text; line breaks are not changed.

    Args:
      data: The bytes.
      place: The name of their file, for the error.
      encoding: The encoding.

    Raises:
      ValueError: If the bytes are not in that encoding.
    """
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"Expected {encoding.upper().removesuffix('-SIG')} text in {place!r}, got the byte "
            f"{error.object[error.start]:#04x} at {error.start}. Convert the file to that encoding."
        ) from None


def check_split(split: str) -> None:
    """Checks the name of a split.

    Raises:
      ValueError: If it is neither ``train`` nor ``test``.
    """
    if split not in ("train", "test"):
        raise ValueError(
            f"Expected split to be 'train' or 'test', got {split!r}. Set it to one of these."
        )
