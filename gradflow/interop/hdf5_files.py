"""Files in the HDF5 format, read as data: with bounded memory and without links to other files."""

import contextlib
import io
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gradflow.checks import shorten

FACTOR = 16
"""Largest size of the arrays in memory, over that of the file: compressed files are smaller."""

_SPARE = 2**20
_MOST_OBJECTS = 200_000
_FILTERS = {1, 2, 3, 32000}  # deflate, shuffle, Fletcher's checksum, LZF: all part of HDF5 or h5py

Arrays = Mapping[str, Any]
"""The data sets of a file by their paths; an index ``[()]`` reads one."""


class Hdf5File:
    """An open HDF5 file whose structure has been checked.

    Attributes:
      arrays: The data sets by path, in the order of the file.
      groups: The paths of the groups; the root is the empty path.
    """

    def __init__(self, file: Any, size: int) -> None:
        self._file = file
        self._budget = FACTOR * size + _SPARE
        self.arrays: dict[str, Any] = {}
        self.groups: list[str] = []
        self._walk(file, "")

    def _walk(self, group: Any, path: str) -> None:
        import h5py

        self.groups.append(path)
        for name in group:
            inner = f"{path}/{name}" if path else name
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(
                    f"Expected an HDF5 file that has all of its data, but {inner!r} is a link to "
                    "another place or file. Save the model again with Keras."
                )
            if len(self.arrays) + len(self.groups) > _MOST_OBJECTS or inner.count("/") > 100:
                raise ValueError(
                    "Expected an HDF5 file with the weights of a model, got one with more than "
                    f"{_MOST_OBJECTS} objects, or groups in a circle. Save the model again."
                )
            value = group[name]
            if isinstance(value, h5py.Group):
                self._walk(value, inner)
            elif isinstance(value, h5py.Dataset):
                self._check(value, inner)
                self.arrays[inner] = value

    def _check(self, array: Any, path: str) -> None:
        """Refuses arrays outside of the file, and those that are far larger than the file."""
        plan = array.id.get_create_plist()
        filters = {plan.get_filter(k)[0] for k in range(plan.get_nfilters())}
        if array.external or array.is_virtual or not filters <= _FILTERS:
            raise ValueError(
                f"Expected an HDF5 file that has all of its data, but {path!r} is stored in "
                "another file, or in a form that needs a plug-in. Save the model again with Keras."
            )
        sizes = [array.shape or (), array.chunks or ()]
        self._check_size(path, max(math.prod(map(int, s)) for s in sizes) * array.dtype.itemsize)

    def _check_size(self, path: str, size: int) -> None:
        if size > self._budget:
            raise ValueError(
                f"Expected arrays of the file's own size, but {path!r} would take {size} bytes in "
                "memory. The file is damaged, or made to exhaust the memory: do not use it."
            )

    def read(self, path: str) -> np.ndarray:
        """Reads an array of floats in float64.

        Raises:
          ValueError: If there is none, it is not of floats, or the arrays that were read are far
            larger than the file.
        """
        if path not in self.arrays:
            raise ValueError(
                f"Expected an array {path!r} in the file, but it has none. The configuration "
                "belongs to other weights, or the file is incomplete: save the model again."
            )
        array = self.arrays[path]
        size = math.prod(array.shape or ()) * max(8, array.dtype.itemsize)
        self._check_size(path, size // 4)  # a file of float16 has a quarter of float64's bytes
        self._budget -= size // 4
        values = array[()]
        if self.attributes(path).get("dtype") == "bfloat16":
            values = _from_bfloat16(values)
        if values.dtype.kind not in "fiu":
            raise ValueError(
                f"Expected an array of floats at {path!r}, got the type {values.dtype}. Save the "
                "model again with Keras."
            )
        return np.asarray(values, np.float64)

    def attributes(self, path: str) -> dict[str, Any]:
        """Reads the attributes of a group or array: texts, lists of texts, and numbers."""
        attrs = (self._file[path] if path else self._file).attrs
        found = {}
        for name in attrs:
            head = attrs.get_id(name)
            self._check_size(f"{path}@{name}", math.prod(head.shape or ()) * head.dtype.itemsize)
            found[name] = _text(attrs[name])
        return found

    def names(self, path: str, attribute: str) -> list[str]:
        """Reads a list of names; Keras splits a long one into ``<attribute>0`` and so on."""
        given = self.attributes(path)
        parts = [key for key in given if re.fullmatch(rf"{attribute}\d*", key)]
        parts.sort(key=lambda key: (len(key), key))
        return [str(name) for key in parts for name in given[key]]


@contextlib.contextmanager
def opened(source: Path | bytes, what: str = "") -> Iterator[Hdf5File]:
    """Opens an HDF5 file, or the bytes of one, for reading.

    Args:
      source: The path or the bytes.
      what: The name of the file for an error, where it is not the path.

    Raises:
      ValueError: If it is damaged, refers to other files, or has arrays far larger than itself;
        also for what reading within the context meets.
    """
    import h5py

    name = what or str(source)
    size = len(source) if isinstance(source, bytes) else os.path.getsize(source)
    try:
        given = io.BytesIO(source) if isinstance(source, bytes) else source
        with h5py.File(given, "r") as file:
            yield Hdf5File(file, size)
    except ValueError as error:
        # h5py's own values errors have no sentence on what to do.
        raise error if str(error).startswith("Expected") else _damaged(name, error) from None
    except (OSError, RuntimeError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise _damaged(name, error) from None
    except (MemoryError, OverflowError, SystemError, NotImplementedError) as error:
        raise _damaged(name, error) from None


def _damaged(name: str, error: Exception) -> ValueError:
    return ValueError(
        f"Expected an HDF5 file at {name!r}, but it is damaged ({shorten(error)}). Copy it again."
    )


def _text(value: Any) -> Any:
    """Texts of an attribute as str, whether fixed or of variable length."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray) and value.ndim == 1:
        return [_text(one) for one in value.tolist()]
    return value


def _from_bfloat16(values: np.ndarray) -> np.ndarray:
    """The numbers of bfloat16, the upper halves of float32, which HDF5 keeps as bare bytes."""
    bits = np.frombuffer(values.tobytes(), "<u2").astype(np.uint32) << 16
    return bits.view(np.float32).reshape(values.shape)
