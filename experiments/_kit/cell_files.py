"""Files of users' cells: a training that is older than the file of its cell is not continued."""

import hashlib
import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING

from gradflow.paths import user_path

if TYPE_CHECKING:
    import xarray


def digests(spec: str) -> dict[str, str]:
    """Computes a digest of each file or module of a user's cell in a spec."""
    found = {}
    for place in re.findall(r"([^,'\"(={]+):\w", spec):
        place = place.strip()
        module = None if place.endswith(".py") else importlib.util.find_spec(place)
        path = user_path(place) if module is None else Path(module.origin or "")
        if path.is_file():
            found[f"contents of {place}"] = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return found


def check_unchanged(spec: str, part: "xarray.Dataset") -> "xarray.Dataset":
    """Returns a stored part of a record whose attributes have the digests of its cell's files.

    Raises:
      ValueError: If a file has changed since.
    """
    for contents, digest in digests(spec).items():
        if part.attrs.get(contents) != digest:
            raise ValueError(
                f"Expected {spec} to be the cell that was trained, but the {contents} have changed "
                "since. Run with --overwrite to train it again."
            )
    return part
