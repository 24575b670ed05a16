"""Files of users' cells: a training that is older than the file of its cell is not continued."""

import ast
import contextlib
import hashlib
import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING

from gradflow.paths import user_path

if TYPE_CHECKING:
    import xarray


FORMS = ("{}.py", "{}/__init__.py")
"""Where a module is, relative to the folder that is imported from."""


def digests(spec: str) -> dict[str, str]:
    """Computes a digest of each file or module of a user's cell in a spec.

    The digest of a file includes the files in its folder that it imports.
    """
    found = {}
    for place in re.findall(r"([^,'\"(={]+):\w", spec):
        place = place.strip()
        module = None if place.endswith(".py") else importlib.util.find_spec(place)
        path = user_path(place) if module is None else Path(module.origin or "")
        if path.is_file():
            digest = hashlib.sha256()
            for source in _with_neighbours(path, path.parent) if module is None else [path]:
                digest.update(source.read_bytes())
            found[f"contents of {place}"] = digest.hexdigest()[:16]
    return found


def _with_neighbours(path: Path, folder: Path) -> dict[Path, None]:
    """The file and the files in the folder that it imports, directly or by others, in order."""
    found, left = {}, [path]
    while left:
        path = left.pop()
        if path not in found and path.is_file():
            found[path] = None
            left += [folder / form.format(name) for name in _imports(path) for form in FORMS]
    return found


def _imports(path: Path) -> list[str]:
    """The names that a file imports, as paths: module, and module/attribute, which may be one."""
    names = []
    with contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [name.replace(".", "/") for name in names]


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
