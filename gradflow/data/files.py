"""What all readers share: files that are there and whole, and errors that say where to get them."""

import gzip
import hashlib
import zlib
from pathlib import Path


def official_file(
    data_dir: str | Path | None,
    name: str,
    *,
    source: str,
    size: int | None = None,
    sha256: str | None = None,
) -> Path:
    """Finds a published file in a folder, and compares it with what is known of it.

    Args:
      data_dir: The folder; none is an error that says what would have to be in it.
      name: The file's name there.
      source: Where it is published.
      size: Its size in bytes, if known.
      sha256: Its checksum, if known.

    Returns:
      The file's path.

    Raises:
      ValueError: If there is no such folder or file, or it is another file than the published.
    """
    if data_dir is None:
        raise ValueError(
            f"a folder with the file {name!r} is expected, got none: fetch the file from {source} "
            "and name its folder by data_dir"
        )
    path = Path(data_dir).expanduser() / name
    if not path.is_file():
        raise missing_file(path, source)
    found = path.stat().st_size
    if size is not None and found != size:
        raise ValueError(
            f"{size} bytes are expected in {str(path)!r}, got {found}: the file was changed or cut "
            f"short; fetch it again from {source}"
        )
    if sha256 is not None:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != sha256:
            raise ValueError(
                f"the sha256 {sha256} is expected of {str(path)!r}, got {digest}: the file was "
                f"changed; fetch it again from {source}"
            )
    return path


def missing_file(path: Path, source: str) -> ValueError:
    """The error for a published file that is not there."""
    there = "a folder without it" if path.parent.is_dir() else "no such folder"
    return ValueError(
        f"the file {path.name!r} is expected in {str(path.parent)!r}, got {there}: fetch it from "
        f"{source}"
    )


def damaged_file(path: Path, kind: str, error: object, source: str) -> ValueError:
    """The error for a published file that cannot be read as the kind of file that it should be."""
    return ValueError(
        f"{kind} is expected in {str(path)!r}, but it is cut short or corrupt: {error}; fetch it "
        f"again from {source}"
    )


def read_gzip(path: Path, *, source: str) -> bytes:
    """What a file that is compressed by gzip holds, all of it.

    Raises:
      ValueError: If it is cut short, its checksum is wrong, or it is no gzip file.
    """
    try:
        return gzip.decompress(path.read_bytes())  # which compares the checksum that it keeps
    except (EOFError, OSError, zlib.error) as error:
        raise damaged_file(path, "a gzip file", error, source) from None


def decoded(data: bytes, place: str, *, encoding: str = "utf-8-sig") -> str:
    """The text that bytes stand for.

    Args:
      data: The bytes.
      place: The file they are of, for the error.
      encoding: How the text is published.

    Raises:
      ValueError: If they are not of that encoding.
    """
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"text in {encoding} is expected in {place!r}, got the byte {data[error.start]:#04x} "
            f"at {error.start}: convert the file, or fetch it again"
        ) from None
