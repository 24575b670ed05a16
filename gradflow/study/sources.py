"""The files that a run is made from, and the digests of their contents.

A configuration names files in its values: a path, or a path within a spec, such as
``path/to/mine.py:factory``, ``text:PATH``, ``series:PATH:COLUMN``, ``PATH:COLUMN`` and these within
options, ``stack(cells='mine.py:a,mine.py:b')``; or a module, ``package.module:factory``.
"""

import ast
import dataclasses
import hashlib
import importlib.util
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from gradflow.study.config import Config

LENGTH = 16
"""Hexadecimal digits of a digest."""

_FORMS = ("{}.py", "{}/__init__.py")  # where a module is, relative to a folder
_SEPARATORS = re.compile(r"[,='\"()\[\]{}\\]")
_MODULE = re.compile(r"([A-Za-z_][\w.]*):[A-Za-z_]\w*")


def digests(config: Config, others: Iterable[str] = ()) -> dict[str, str]:
    """Computes the digest of every file that a configuration names, by the file's name.

    The digest of a cell's file covers the files beside it that it imports, too; that of a module
    covers the module alone. A value that could be a plain name, such as ``lstm``, is not taken for
    a path.

    Args:
      config: The configuration.
      others: Further paths of files or folders, and specs, which a study knows to be read.

    Returns:
      The first digits of the SHA-256 of each content. A name is the path as typed; of an absolute
      path only its last component.

    Raises:
      OSError: If a file cannot be read.
    """
    values = [*_texts(dataclasses.astuple(config)), *others]
    places = dict([*_existing(others), *(place for value in values for place in _named(value))])
    found: dict[str, str] = {}
    for name, path in places.items():
        short = os.path.basename(name.rstrip("/")) if name.startswith(("/", "~")) else name
        sources = _with_neighbours(path) if name.endswith(".py") else [path]
        digest = "+".join(map(_digest, sources))
        # Two absolute paths may end in the same name.
        found[short] = f"{found[short]}+{digest}" if short in found else digest
    return dict(sorted(found.items()))


def _with_neighbours(path: Path) -> dict[Path, None]:
    """A file and the files of its folder that it imports, directly or by others, in order."""
    folder, found, left = path.parent, {}, [path]
    while left:
        path = left.pop()
        if path not in found and path.is_file():
            found[path] = None
            left += [folder / form.format(name) for name in _imports(path) for form in _FORMS]
    return found


def _imports(path: Path) -> list[str]:
    """The names that a file imports, as paths: module, and module/attribute, which may be one."""
    names = []
    with suppress(SyntaxError, ValueError, RecursionError, MemoryError):  # reported by its import
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [name.replace(".", "/") for name in names]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from _texts(part)


def _existing(paths: Iterable[str]) -> Iterator[tuple[str, Path]]:
    return ((path, found) for path in paths if (found := Path(os.path.expanduser(path))).exists())


def _named(value: str) -> Iterator[tuple[str, Path]]:
    """Yields the files and modules in a value, by their names there."""
    for text in dict.fromkeys([value, *_SEPARATORS.split(value)]):
        yield from _module(text.strip())
        yield from _between_colons(text.strip())


def _between_colons(text: str) -> Iterator[tuple[str, Path]]:
    parts = text.split(":")
    for start in range(len(parts)):
        for end in range(len(parts), start, -1):
            place = ":".join(parts[start:end])
            is_name = start == 0 and place.isidentifier()
            if not is_name and os.path.isfile(path := os.path.expanduser(place)):
                yield place, Path(path)
                if place.endswith(".py"):
                    return  # what follows is the name of a factory


def _module(text: str) -> Iterator[tuple[str, Path]]:
    if match := _MODULE.fullmatch(text):
        with suppress(Exception):  # whatever is wrong with a module is reported by its import
            spec = importlib.util.find_spec(match[1])
            if spec is not None and spec.origin and os.path.isfile(spec.origin):
                yield match[1], Path(spec.origin)


def _digest(path: Path) -> str:
    """The digest of a file, or of all names and contents in a folder."""
    whole = hashlib.sha256()
    if path.is_dir():
        for inner in sorted(p for p in path.rglob("*") if p.is_file()):
            whole.update(f"{inner.relative_to(path).as_posix()} {_digest(inner)}\n".encode())
    else:
        with path.open("rb") as file:
            whole = hashlib.file_digest(file, "sha256")
    return whole.hexdigest()[:LENGTH]
