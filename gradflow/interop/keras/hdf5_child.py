"""Reads one HDF5 file in a process of its own, for `gradflow.interop.keras.hdf5_files`.

The HDF5 library crashes on some damaged files; then it is this process that ends. It is run as a
script, and imports nothing of gradflow. The protocol, on standard input and output: a line of JSON
with the path and the size of the file, and the file's bytes if it has no path; a line of JSON with
what is in it; then, for each path of an array, a line of JSON with its shape and its numbers.
"""

import contextlib
import io
import json
import math
import sys
from typing import Any, BinaryIO

import numpy as np

FACTOR = 16
"""Largest size of the arrays in memory, over that of the file: compressed files are smaller."""

_SPARE = 2**20
_MEMORY = 2**30
_MOST_OBJECTS = 200_000
_FILTERS = {1, 2, 3, 32000}  # deflate, shuffle, Fletcher's checksum, LZF: all part of HDF5 or h5py


class Reader:
    """An open HDF5 file whose structure has been checked.

    Attributes:
      arrays: The data sets by path.
      groups: The paths of the groups; the root is the empty path.
      attributes: The attributes that are texts or lists of texts, by the path of their group.
    """

    def __init__(self, file: Any, size: int) -> None:
        self._budget = FACTOR * size + _SPARE
        self.arrays: dict[str, Any] = {}
        self.groups: list[str] = []
        self.attributes: dict[str, dict[str, Any]] = {}
        self._walk(file, "")

    def _walk(self, group: Any, path: str) -> None:
        import h5py

        self.groups.append(path)
        self.attributes[path] = self._attributes(group, path)
        for name in group:
            if not _is_valid(name):
                raise ValueError(f"the name {ascii(name)} is not a text")
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

    def _attributes(self, owner: Any, path: str) -> dict[str, Any]:
        found = {}
        for name in filter(_is_valid, owner.attrs):
            head = owner.attrs.get_id(name)
            self._check_size(f"{path}@{name}", math.prod(head.shape or ()) * head.dtype.itemsize)
            found[name] = _text(owner.attrs[name])
        return {name: value for name, value in found.items() if value is not None}

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
        """Reads an array of numbers in float64."""
        array = self.arrays[path]
        size = math.prod(array.shape or ()) * array.dtype.itemsize
        self._check_size(path, size)
        self._budget -= size
        values = array[()]
        if self._attributes(array, path).get("dtype") == "bfloat16":
            values = _from_bfloat16(values)
        if values.dtype.kind not in "fiu":
            raise ValueError(
                f"Expected an array of floats at {path!r}, got the type {values.dtype}. Save the "
                "model again with Keras."
            )
        with np.errstate(all="ignore"):  # NumPy warns of some NaN, which damaged files have
            return np.asarray(values, np.float64)


def _is_valid(name: str | bytes) -> bool:
    """Whether a name is UTF-8; h5py leaves others as bytes, or keeps halves of characters."""
    return isinstance(name, str) and all(not 0xD800 <= ord(char) < 0xE000 for char in name)


def _text(value: Any) -> Any:
    """A text or a list of texts of an attribute, fixed or of variable length; None for others."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()  # without the halves of characters
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind in "SO":
        return [str(_text(one)) for one in value.tolist()]
    return None


def _from_bfloat16(values: np.ndarray) -> np.ndarray:
    """The numbers of bfloat16, the upper halves of float32, which HDF5 keeps as bare bytes."""
    bits = np.frombuffer(values.tobytes(), "<u2").astype(np.uint32) << 16
    return bits.view(np.float32).reshape(values.shape)


def _limit_memory(size: int) -> None:
    """Lets a damaged file allot no more than what an intact one can need."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        most = used + _MEMORY + 4 * FACTOR * size
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _say(out: BinaryIO, answer: dict[str, Any], content: bytes = b"") -> None:
    out.write(json.dumps(answer).encode() + b"\n" + content)
    out.flush()


def serve(given: BinaryIO, out: BinaryIO) -> None:
    """Answers for one file until the input ends; an error is the last answer."""
    import h5py

    order = json.loads(given.readline())
    _limit_memory(order["size"])
    path = order["path"]
    try:
        with h5py.File(
            io.BytesIO(given.read(order["size"])) if path is None else path, "r"
        ) as file:
            reader = Reader(file, order["size"])
            shapes = {name: list(array.shape or ()) for name, array in reader.arrays.items()}
            _say(
                out,
                {"groups": reader.groups, "arrays": shapes, "attributes": reader.attributes},
            )
            while line := given.readline():
                array = reader.read(json.loads(line))
                _say(out, {"shape": array.shape}, array.tobytes())
    except Exception as error:  # h5py raises whatever the library makes of a damaged file
        _say(out, {"error": str(error) or type(error).__name__})


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
