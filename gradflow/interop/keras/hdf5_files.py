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

    def __init__(
        self, process: "subprocess.Popen[bytes]", name: str, seconds: float, order: bytes
    ) -> None:
        self._process, self._name, self._seconds = process, name, seconds
        about, _ = self._ask(order)
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
        _, content = self._ask(json.dumps(path).encode() + b"\n", 8 * math.prod(self.arrays[path]))
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

    def _ask(self, question: bytes, num_bytes: int = 0) -> tuple[dict[str, Any], bytes]:
        """Returns an answer, and the bytes after it; the process is ended if it takes too long."""
        given, out = self._process.stdin, self._process.stdout
        assert given is not None and out is not None
        with contextlib.suppress(OSError):  # the process has ended, which its answer shows
            given.write(question)
            given.flush()
        timer = threading.Timer(self._seconds, self._process.kill)
        timer.start()
        try:
            line = out.readline()
            answer = json.loads(line) if line.endswith(b"\n") else {"error": "reading it fails"}
            content = b"" if "error" in answer else out.read(num_bytes)
        finally:
            timer.cancel()
        if "error" not in answer and len(content) == num_bytes:
            return answer, content
        error = shorten(answer.get("error", "reading it fails"))
        if error.startswith("Expected"):
            raise ValueError(error)
        raise ValueError(
            f"Expected an HDF5 file at {self._name!r}, but it is damaged ({error}). Copy it again."
        )


@contextlib.contextmanager
def opened(source: Path | bytes, what: str = "") -> Iterator[Hdf5File]:
    """Opens an HDF5 file, or the bytes of one that ``what`` names, for reading."""
    content = source if isinstance(source, bytes) else b""
    path = None if isinstance(source, bytes) else os.path.abspath(source)
    size = os.path.getsize(path) if path else len(content)
    order = json.dumps({"path": path, "size": size}).encode() + b"\n" + content
    # -P keeps the modules beside the script from hiding others of their names.
    command = [sys.executable, "-P", hdf5_child.__file__]
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nothing)
    try:
        seconds = _SECONDS + size / _BYTES_PER_SECOND
        yield Hdf5File(process, what or str(source), seconds, order)
    finally:
        process.kill()
        with contextlib.suppress(OSError):
            process.communicate()
