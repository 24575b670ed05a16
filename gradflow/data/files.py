"""Published files: their lookup and verification, and errors that name their source."""

import gzip
import io
import zlib
from pathlib import Path


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
      ValueError: If the folder or the file is missing, or the file is not the published one.
    """
    if data_dir is None:
        raise ValueError(
            f"Expected a folder with the file {name!r}, got none. Download the file from {source} "
            "and set data_dir to its folder."
        )
    path = Path(data_dir).expanduser() / name
    if not path.is_file():
        raise missing_file(path, source)
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
        f"Expected {kind} at {str(path)!r}, but it is truncated or corrupt: {error}. Download it "
        f"again from {source}."
    )


def read_gzip(path: Path, *, source: str) -> bytes:
    """Reads and decompresses a gzip file.

    Raises:
      ValueError: If it is truncated, its checksum is wrong, or it is not a gzip file.
    """
    try:
        return gzip.decompress(path.read_bytes())  # verifies the checksum of the format
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
