"""Files in the safetensors format, opened for reading."""

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
            f"({shorten(error)}). Copy it again, or save it again from its framework."
        ) from None
