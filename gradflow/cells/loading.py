"""Cells of a user's own: factories in files and in modules."""

import contextlib
import functools
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from gradflow.checks import shorten
from gradflow.paths import user_path

_FAULTS = (ImportError, LookupError, NameError, AttributeError, ArithmeticError, SyntaxError)
_FAULTS += (AssertionError, RecursionError, SystemExit)
"""What a factory raises by mistake."""


def load_factory(place: str, attribute: str) -> Callable[..., Any]:
    """Executes a file or imports a module, and returns its attribute of the given name.

    A file may import others in its folder. They are executed again whenever the file is, so that
    files of equal names in different folders do not mix.

    Raises:
      ValueError: If there is no such file, module or attribute, or if executing it raises any
        exception; and, when the factory is called, if that raises one by mistake.
    """
    path = _existing(place) if place.endswith(".py") else None
    with _reported(place, attribute, path, Exception, SystemExit):
        module = _execute(path) if path else importlib.import_module(place)
    factory = getattr(module, attribute, None)
    if not callable(factory):
        found = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise ValueError(
            f"Expected the name of a factory in {place}, got {attribute!r}. "
            f"Choose one of its callables: {', '.join(found)}."
        )

    @functools.wraps(factory)
    def make(*arguments: Any, **options: Any) -> Any:
        neighbours = _first_on_path(str(path.parent)) if path else contextlib.nullcontext()
        # A factory refuses an option by a ValueError or a TypeError, with a message of its own.
        with neighbours, _reported(place, attribute, path, *_FAULTS):
            return factory(*arguments, **options)

    return make


@contextlib.contextmanager
def _reported(
    place: str, attribute: str, path: Path | None, *kinds: type[BaseException]
) -> Iterator[None]:
    """Turns exceptions of the given kinds in a user's code into a ValueError that says where."""
    try:
        yield
    except kinds as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{place}.".startswith(f"{missing}."):
            raise ValueError(
                f"Expected the cell {place}:{attribute} in an importable module, got "
                f"{missing!r}, which cannot be found. Check its name and PYTHONPATH."
            ) from None
        message = error.msg if isinstance(error, SyntaxError) else error
        raise ValueError(
            f"Expected the cell {place}:{attribute} to be made without errors, got "
            f"{type(error).__name__} in {_line(error, path) or place}: {shorten(message)}. "
            f"{f'Install {missing}' if missing else 'Correct that line'}."
        ) from None


def _existing(place: str) -> Path:
    path = user_path(place)
    if not path.is_file():
        raise ValueError(
            f"Expected the file of a cell, got {place!r}, which does not exist. "
            "Give an absolute path or one relative to the current directory."
        )
    return path.absolute()


def _execute(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None  # the suffix is .py
    module = importlib.util.module_from_spec(spec)
    with _first_on_path(str(path.parent)):
        spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _first_on_path(folder: str) -> Iterator[None]:
    """Lets imports find the modules of a folder first, and forgets these modules afterwards."""
    before = set(sys.modules)
    sys.path.insert(0, folder)
    importlib.invalidate_caches()  # a file that was written a moment ago could be missed
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the executed code may have changed the path too
            sys.path.remove(folder)
        new = set(sys.modules) - before
        own = {name for name in new if _is_directly_in(folder, sys.modules[name])}
        for name in new:
            # With a module go its submodules, but not those of a package that was there before.
            if name.partition(".")[0] in own:
                del sys.modules[name]


def _is_directly_in(folder: str, module: ModuleType) -> bool:
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    return any(place and os.path.dirname(place) == folder for place in places)


def _line(error: BaseException, path: Path | None) -> str | None:
    """Returns the last line of the user's own code that an error went through."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"line {error.lineno} of {error.filename!r}"
    frames = traceback.extract_tb(error.__traceback__)
    files = [f for f in frames if f.filename not in (__file__, importlib.__file__)]
    own = [f for f in files if path is None or Path(f.filename).parent == path.parent]
    return f"line {own[-1].lineno} of {own[-1].filename!r}" if own else None
