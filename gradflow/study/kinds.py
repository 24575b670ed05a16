"""The types that a field of a configuration can have, and how each is parsed."""

import types
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from gradflow.spec import split_specs


class Kind(NamedTuple):
    """How a value of a type is parsed from a command line, and the words for it in errors."""

    read: Callable[[str], Any]
    words: str


def _boolean(value: str) -> bool:
    return {"true": True, "1": True, "false": False, "0": False}[value.lower()]


_PLAIN = {
    bool: Kind(_boolean, "true or false"),
    float: Kind(float, "a number"),
    int: Kind(int, "an integer"),
    str: Kind(str, "a text"),
}


def kind_of(hint: Any) -> Kind:
    """Returns how a field of a given type is parsed.

    Raises:
      TypeError: If a configuration cannot have fields of that type.
    """
    origin, parts = get_origin(hint), get_args(hint)
    if hint in _PLAIN:
        return _PLAIN[hint]
    if origin is Literal and all(isinstance(part, str) for part in parts):
        return Kind({part: part for part in parts}.__getitem__, "one of " + ", ".join(parts))
    if origin in (Union, types.UnionType) and len(parts) == 2 and type(None) in parts:
        return _optional(kind_of(parts[parts[0] is type(None)]))
    if origin is tuple and len(parts) == 2 and parts[1] is Ellipsis:
        return _list_of(kind_of(parts[0]))
    raise TypeError(
        "Expected a field of type int, float, bool, str, a Literal of strings, one of these or "
        f"None, or a tuple[one of these, ...], got {hint}. Declare it as one of them."
    )


def _optional(inner: Kind) -> Kind:
    def read(value: str) -> Any:
        return None if value.lower() == "none" else inner.read(value)

    return Kind(read, f"{inner.words} or none")


def _list_of(inner: Kind) -> Kind:
    def read(value: str) -> tuple[Any, ...]:
        parts = split_specs(value)
        if not parts:
            raise ValueError("the list is empty")
        return tuple(inner.read(part) for part in parts)

    return Kind(read, f"a comma-separated list, each {inner.words}")
