"""One value for all cells that were made alike, so that what is compiled for one serves all.

Measurements are compiled with the cell as a constant, and two calls of one factory give different
functions: ``lstm(3, 8) != lstm(3, 8)``. Without this, each new cell is compiled again, in a second
or more. Only functions of this package are compared by what they close over. Those of a user may
read global variables that have changed since, and are the same only if they are one object.
"""

from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any

import jax
import numpy as np

from gradflow.cell import Cell
from gradflow.flow.closed_over import is_traced

_MOST_CELLS = 256
_MOST_BYTES = 2**16

_FIRST: dict[Any, Cell] = {}
"""The first cell of each kind, by what distinguishes it."""


class _Unknown(Exception):
    """A cell closes over a traced value, which must not be kept."""


class _Itself:
    """An object that equals itself alone, and stays alive as long as it is compared with."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def interned(cell: Cell) -> Cell:
    """Returns the first cell that steps like this one; the cell itself, if it is the first.

    Its initialisation and its noise, which no measurement uses, may be others.
    """
    try:
        key = _identity(cell)
    except _Unknown:
        return cell
    if key not in _FIRST and len(_FIRST) >= _MOST_CELLS:
        del _FIRST[next(iter(_FIRST))]
    return _FIRST.setdefault(key, cell)


def _identity(value: Any) -> Any:
    """What distinguishes a value from others: hashable, and of values that do not change."""
    if isinstance(value, Cell):
        return Cell, *map(_identity, (value.step, value.initial_carry, value.hidden, value.gates))
    if isinstance(value, FunctionType) and _is_own(value):
        return _of_function(value)
    if isinstance(value, partial):
        return partial, *map(_identity, (value.func, value.args, value.keywords))
    if isinstance(value, np.ndarray | jax.Array):
        if is_traced(value):
            raise _Unknown
        is_key = jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key)
        if is_key or value.nbytes > _MOST_BYTES:
            return _Itself(value)
        return np.ndarray, value.shape, str(value.dtype), np.asarray(value).tobytes()
    if isinstance(value, tuple | list):
        return type(value), tuple(map(_identity, value))
    if isinstance(value, dict):
        return dict, tuple((_identity(key), _identity(one)) for key, one in value.items())
    if value is None or isinstance(value, bool | int | float | str):
        return type(value), repr(value)  # 1, 1.0 and True are equal, and not the same
    return _Itself(value)


def _is_own(function: Callable[..., Any]) -> bool:
    return (function.__module__ or "").partition(".")[0] == "gradflow"


def _of_function(function: FunctionType) -> Any:
    cells = function.__closure__ or ()
    inside = tuple(_identity(cell.cell_contents) for cell in cells)
    defaults = function.__defaults__, tuple(sorted((function.__kwdefaults__ or {}).items()))
    return _Itself(function.__code__), inside, _identity(defaults)
