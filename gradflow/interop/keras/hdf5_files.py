"""Files in the HDF5 format, read as data: with bounded memory and without links to other files.

The HDF5 library crashes or hangs on some damaged files. It therefore runs in a process of its own,
`gradflow.interop.keras.hdf5_child`, which starts in a fraction of a second.
"""

import contextlib
import json
import math
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gradflow.checks import shorten
from gradflow.interop.keras import hdf5_child

_SECONDS = 60.0
_BYTES_PER_SECOND = 5e6


class Hdf5File:
    """An open HDF5 file whose structure has been checked; made by `opened`.

    Attributes:
      groups: The paths of the groups; the root is the empty path.
      arrays: The shapes of the arrays by their paths.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", name: str, seconds: float) -> None:
        self._process, self._name, self._seconds = process, name, seconds
        about = self._answer()
        self.groups: list[str] = about["groups"]
        self.arrays: dict[str, tuple[int, ...]] = {
            path: tuple(shape) for path, shape in about["arrays"].items()
        }
        self._attributes: dict[str, dict[str, Any]] = about["attributes"]

    def read(self, path: str) -> np.ndarray:
        """Reads an array of numbers in float64."""
        if path not in self.arrays:
            raise ValueError(
                f"Expected an array {path!r} in the file, but it has none. The configuration "
                "belongs to other weights, or the file is incomplete: save the model again."
            )
        self._ask(json.dumps(path).encode() + b"\n")
        content = self._answer(num_bytes=8 * math.prod(self.arrays[path]))["content"]
        return np.frombuffer(content, np.float64).reshape(self.arrays[path]).copy()

    def attributes(self, path: str) -> dict[str, Any]:
        """Returns the attributes of a group that are texts or lists of texts."""
        return self._attributes.get(path, {})

    def names(self, path: str, attribute: str) -> list[str]:
        """Returns a list of names; Keras splits a long one into ``<attribute>0`` and so on."""
        given = self.attributes(path)
        parts = [key for key in given if re.fullmatch(rf"{attribute}\d*", key)]
        parts.sort(key=lambda key: (len(key), key))
        return [name for key in parts if isinstance(given[key], list) for name in given[key]]

    def _ask(self, content: bytes) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # what has happened shows in the answer
            self._process.stdin.write(content)
            self._process.stdin.flush()

    def _answer(self, num_bytes: int = 0) -> dict[str, Any]:
        """Reads an answer, and the bytes after it; the process is ended if it takes too long."""
        assert self._process.stdout is not None
        timer = threading.Timer(self._seconds, self._process.kill)
        timer.start()
        try:
            line = self._process.stdout.readline()
            answer = json.loads(line) if line.endswith(b"\n") else {"error": "reading it fails"}
            content = b"" if "error" in answer else self._process.stdout.read(num_bytes)
        finally:
            timer.cancel()
        if "error" not in answer and len(content) < num_bytes:
            answer = {"error": "reading it fails"}
        if "error" in answer:
            error = shorten(answer["error"])
            raise ValueError(error) if error.startswith("Expected") else _damaged(self._name, error)
        return answer | {"content": content}


@contextlib.contextmanager
def opened(source: Path | bytes, what: str = "") -> Iterator[Hdf5File]:
    """Opens an HDF5 file, or the bytes of one, for reading.

    Args:
      source: The path or the bytes.
      what: The name of the file for an error, where it is not the path.
    """
    is_content = isinstance(source, bytes)
    size = len(source) if isinstance(source, bytes) else os.path.getsize(source)
    order = {"path": None if is_content else os.path.abspath(source), "size": size}
    # -P keeps the modules beside the script from hiding others of their names.
    command = [sys.executable, "-P", hdf5_child.__file__]
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nothing)
    try:
        assert process.stdin is not None
        with contextlib.suppress(OSError):  # it has ended, which its answer shows
            process.stdin.write(json.dumps(order).encode() + b"\n")
            process.stdin.write(source if isinstance(source, bytes) else b"")
            process.stdin.flush()
        yield Hdf5File(process, what or str(source), _SECONDS + size / _BYTES_PER_SECOND)
    finally:
        process.kill()
        with contextlib.suppress(OSError):
            process.communicate()


def _damaged(name: str, error: str) -> ValueError:
    return ValueError(
        f"Expected an HDF5 file at {name!r}, but it is damaged ({error}). Copy it again."
    )
