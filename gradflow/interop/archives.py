"""Zip archives and safetensors files opened as data: damage and bombs are refused at once."""

import contextlib
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from gradflow.checks import shorten
from gradflow.paths import user_path

FREE_SIZE = 16 * 2**20
"""Bytes that an archive of any size may unpack to: arrays of zeros compress by a factor of 1000."""

LARGEST_RATIO = 100
"""Largest unpacked size of all members, as a multiple of the archive's; weights compress little."""

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""The compressions of model files. LZMA is refused: its header decides how much is allotted."""

_CHUNK = 2**20
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ArithmeticError, RuntimeError)
_DAMAGE += (ValueError, LookupError, OSError)
"""What zipfile raises for damaged bytes; RuntimeError is for encrypted members."""


class Archive:
    """An open zip archive whose members fit in memory; made by `opened_archive`.

    All that is damaged or missing raises a ValueError, as `damaged` returns it.

    Attributes:
      names: The names of its members, in their order. Folders are left out.
    """

    def __init__(self, path: Path, file: zipfile.ZipFile) -> None:
        """Checks what the directory of the archive says."""
        self._path, self._file = path, file
        members = [info for info in file.infolist() if not info.is_dir()]
        self.names = tuple(info.filename for info in members)
        self._members = {info.filename: info for info in members}
        packed, most = path.stat().st_size, largest_size(path)
        unpacked = sum(info.file_size for info in members)
        if len(self._members) != len(members):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise damaged(path, f"it has two members of the name {shorten(twice)}")
        if unpacked > most or any(info.compress_size > packed for info in members):
            raise ValueError(
                f"Expected an archive at {str(path)!r} that unpacks to at most {most} bytes, got "
                f"{packed} bytes that unpack to {unpacked}. If it is no zip bomb, unpack it and "
                "save the arrays without compression."
            )

    def read(self, name: str) -> bytes:
        """Returns the content of a member, after its checksum was verified."""
        if name not in self._members:
            raise damaged(self._path, f"it has no member {shorten(name)}")
        info = self._members[name]
        if info.compress_type not in METHODS:
            raise damaged(
                self._path, f"the member {shorten(name)} has compression {info.compress_type}"
            )
        content = bytearray()
        try:
            with self._file.open(info) as file:
                # Unlike read() without a size, this never unpacks more than the declared size.
                while chunk := file.read(_CHUNK):
                    content += chunk
        except _DAMAGE as error:
            raise damaged(self._path, shorten(error)) from None
        if len(content) != info.file_size:
            found = f"{len(content)} of {info.file_size} bytes"
            raise damaged(self._path, f"the member {shorten(name)} has {found}")
        return bytes(content)


class Budget:
    """The bytes that arrays read from one file may have: many may be views of the same bytes."""

    def __init__(self, path: Path) -> None:
        """Sets the size that `largest_size` gives."""
        self._path, self._left = path, largest_size(path)

    def spend(self, array: np.ndarray) -> np.ndarray:
        """Returns the array, if there is room for it."""
        self._left -= array.nbytes
        if self._left < 0:
            raise damaged(self._path, "its arrays repeat the same bytes too often")
        return array


def largest_size(path: Path) -> int:
    """Returns how many bytes the content of a file may have in memory."""
    return max(FREE_SIZE, LARGEST_RATIO * path.stat().st_size)


@contextlib.contextmanager
def opened_archive(path: Path) -> Iterator[Archive]:
    """Opens a zip archive for reading.

    Members are read by `Archive.read`, which allots at most what the directory of the archive
    declares; and that is at most `LARGEST_RATIO` times the size of the file, or `FREE_SIZE`.

    Raises:
      ValueError: If it is no archive, is damaged, or is a zip bomb.
      OSError: If there is no such file.
    """
    os.stat(path)  # an OSError below is damage
    try:
        file = zipfile.ZipFile(path)
    except _DAMAGE as error:
        raise damaged(path, shorten(error)) from None
    with file:
        yield Archive(path, file)


@contextlib.contextmanager
def opened_safetensors(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Opens a safetensors file for reading, as `safetensors.safe_open`, for arrays of NumPy."""
    path = user_path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected a file with parameters of a cell at {str(path)!r}, got none. Check the path."
        )
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(
            f"Expected a safetensors file at {str(path)!r}, but it cannot be read "
            f"({shorten(error)}). Copy it again, or save it again from its framework."
        ) from None


def damaged(path: Path, why: str) -> ValueError:
    """Returns the error for an archive, or a part of it, that cannot be read."""
    return ValueError(
        f"Expected an undamaged archive at {str(path)!r}, but it cannot be read: {why}. Copy or "
        "save it again."
    )


@contextlib.contextmanager
def undamaged(what: str, fix: str) -> Iterator[None]:
    """Turns whatever a library raises for damaged content into a ValueError that says so.

    Errors of the system, missing packages, and errors of ours are left as they are.

    Args:
      what: What was expected, such as ``an ONNX model at 'PATH'``.
      fix: What to do, as a sentence.
    """
    try:
        yield
    except (OSError, ImportError):
        raise
    except Exception as error:
        if isinstance(error, ValueError) and str(error).startswith("Expected"):
            raise
        raise ValueError(
            f"Expected {what}, but it is damaged ({type(error).__name__}: {shorten(error)}). {fix}"
        ) from None
