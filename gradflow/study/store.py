"""Atomic files: JSON and netCDF."""

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray


def temporary(path: Path) -> Path:
    """Returns the temporary name under which this process writes a file."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Gives a temporary name in the same folder, which becomes ``path`` when the block ends.

    A reader, and a process that is killed at any moment, sees the old file or the new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = temporary(path)
    try:
        yield draft
        with open(draft, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file atomically."""
    with atomic(path) as draft:
        draft.write_bytes(content)


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


def write_dataset(path: Path, dataset: "xarray.Dataset") -> None:
    """Writes a dataset as netCDF, atomically; equal datasets give equal bytes."""
    with atomic(path) as draft:
        dataset.to_netcdf(draft, engine="h5netcdf")


def read_dataset(path: Path) -> "xarray.Dataset":
    """Reads a dataset into memory and closes its file.

    Raises:
      OSError: If there is no such file, or it cannot be read as netCDF.
    """
    import xarray

    try:
        # Without the encoding of the file, the same dataset is always written in the same bytes.
        return xarray.load_dataset(path, engine="h5netcdf").drop_encoding()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist") from None
    except Exception as error:  # a damaged file fails anywhere in three libraries
        raise OSError(f"{path} cannot be read as netCDF ({error})") from error
