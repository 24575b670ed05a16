"""The run-time type checker of the tests."""

import inspect
from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype

# An int stands for a float, as in every signature of Python.
_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
_FOUND: dict[Any, Callable] = {}


def check(function: Callable) -> Callable:
    """Returns the function with its arguments and its result checked against its annotations.

    jaxtyping gives it functions that have a signature and do nothing. A function within a function
    is decorated at every call of the outer one, and beartype writes and compiles code each time,
    which took 7 % of the tests' time: what was made for the same name and signature is used again.
    """
    try:
        key = function.__module__, function.__qualname__, inspect.signature(function)
        return _FOUND.setdefault(key, _FOUND.get(key) or _checked(function))
    except (TypeError, ValueError):  # a class, or a default that cannot be hashed
        return _checked(function)
