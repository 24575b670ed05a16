"""Checks of the sizes and options of a cell, made when it is built."""

import math

_RANGES = {
    "finite": math.isfinite,
    "positive": lambda value: 0 < value < math.inf,
    "not negative": lambda value: 0 <= value < math.inf,
    "between 0 and 1": lambda value: 0 <= value <= 1,
}


def check_number(name: str, value: object, wanted: str, *, mend: str) -> None:
    """Checks that an option of a cell is a number in the range that the cell's equations need.

    Args:
      name: The option's name.
      value: What was given for it.
      wanted: ``finite``, ``positive``, ``not negative`` or ``between 0 and 1``; infinities and
        NaN are none of them.
      mend: What to give instead.

    Raises:
      TypeError: If it is not a number.
      ValueError: If it is out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is expected to be a number, got {value!r}; {mend}")
    if not _RANGES[wanted](value):
        raise ValueError(f"{name} is expected to be {wanted}, got {value!r}; {mend}")


def check_integer(name: str, value: object, most: int, *, mend: str) -> None:
    """Checks that an option of a cell is an integer within 0 ... most.

    Raises:
      TypeError: If it is not an integer.
      ValueError: If it is out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is expected to be an integer, got {value!r}; {mend}")
    if not 0 <= value <= most:
        raise ValueError(f"{name} is expected within 0 ... {most}, got {value}; {mend}")


def check_sizes(input_size: int, hidden_size: int) -> None:
    """Raises the error for sizes that no cell can have.

    Raises:
      TypeError: If a size is not an integer.
      ValueError: If the input size is negative (0 is an autonomous cell) or the hidden size
        not positive.
    """
    for name, size, least in (("input_size", input_size, 0), ("hidden_size", hidden_size, 1)):
        if not isinstance(size, int) or isinstance(size, bool):
            raise TypeError(f"{name} is expected to be an integer, got {size!r}")
        if size < least:
            raise ValueError(f"{name} is expected to be at least {least}, got {size}")
