"""Files in the safetensors format: opened for reading, and written as a whole."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from safetensors import SafetensorError, safe_open

from gradflow.checks import shorten
from gradflow.paths import user_path


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Opens a file for reading, as `safetensors.safe_open`, for arrays of NumPy.

    Raises:
      ValueError: If it is not a safetensors file.
      OSError: If there is no such file.
    """
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
            f"({shorten(error)}). Write it with gradflow.interop.save_params."
        ) from None


def write(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes a file, in a new folder if there is none. An interrupted write leaves no part of it.

    Raises:
      OSError: If it cannot be written.
    """
    path = user_path(path)
    # A rename is atomic: the file appears only after its content is on the disk.
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(draft, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
