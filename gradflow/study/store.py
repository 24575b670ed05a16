"""JSON and netCDF files, which are verified when they are read."""

import hashlib
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradflow.paths import write_bytes

if TYPE_CHECKING:
    import xarray

SHA256 = "sha256"
"""The key of a JSON file's own checksum."""

_SEAL = b"\nsha256:"
"""What stands between a netCDF file and its checksum. Readers of HDF5 ignore bytes at the end."""


def write_json(path: Path, value: Any) -> None:
    """Writes a value as JSON, atomically."""
    write_bytes(path, to_json(value).encode())


def to_json(value: Any) -> str:
    """Writes nested plain values as strict JSON.

    NumPy's scalars and arrays count as plain; nan and inf, which JSON lacks, become strings.

    Raises:
      TypeError: If there is a value of another kind in it.
    """
    return json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def plain(value: Any) -> Any:
    """Converts nested values to those that reading a JSON file returns."""
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def write_verified(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a mapping as JSON with its own checksum, atomically."""
    write_json(path, {**value, SHA256: _checksum(value)})


def read_verified(path: Path) -> dict[str, Any]:
    """Reads the mapping that `write_verified` wrote; a file without a checksum is not verified.

    Raises:
      FileNotFoundError: If there is no such file.
      ValueError: If the file is not what was written.
    """
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"Expected JSON in {path}, but it is damaged ({error}).") from None
    if not isinstance(value, dict):
        raise ValueError(f"Expected a JSON object in {path}, got {json.dumps(value)[:40]}.")
    checksum = value.pop(SHA256, None)
    if checksum is not None and checksum != _checksum(value):
        raise ValueError(f"Expected {path} as it was written, but its checksum is another one.")
    return value


def _checksum(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(to_json(value).encode()).hexdigest()


def write_dataset(path: Path, dataset: "xarray.Dataset") -> None:
    """Writes a dataset as netCDF with a checksum, atomically; equal datasets give equal bytes.

    The file is made in memory: on a full disk, HDF5 crashes when it closes a file.
    """
    content = bytes(dataset.to_netcdf(engine="h5netcdf"))
    write_bytes(path, content + _SEAL + hashlib.sha256(content).hexdigest().encode())


def read_dataset(path: str | Path) -> "xarray.Dataset":
    """Reads a dataset into memory. A file that others wrote has no checksum, and is not verified.

    Raises:
      OSError: If there is no such file, it is not what was written, or it cannot be read as netCDF.
    """
    import xarray

    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist") from None
    body, seal = content[: -len(_SEAL) - 64], content[-len(_SEAL) - 64 :]
    if seal.startswith(_SEAL):
        if hashlib.sha256(body).hexdigest().encode() != seal[len(_SEAL) :]:
            raise OSError(f"{path} cannot be read: its checksum is another one")
        content = body
    try:
        # Without the encoding of the file, the same dataset is always written in the same bytes.
        return xarray.load_dataset(io.BytesIO(content), engine="h5netcdf").drop_encoding()
    except Exception as error:  # a damaged file fails anywhere in three libraries
        reason = " ".join(str(error).split())
        raise OSError(f"{path} cannot be read as netCDF ({reason})") from error
