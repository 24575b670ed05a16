"""Checks of sizes and numerical options, with errors that state the expected range."""

import math

_RANGES = {
    "finite": math.isfinite,
    "positive": lambda value: 0 < value < math.inf,
    "non-negative": lambda value: 0 <= value < math.inf,
    "between 0 and 1": lambda value: 0 <= value <= 1,
    "between 0.5 and 10": lambda value: 0.5 <= value <= 10,
}


def check_number(name: str, value: object, wanted: str, *, example: float) -> None:
    """Checks that an option is a number in the given range.

    Args:
      name: The option's name.
      value: Its value.
      wanted: ``finite``, ``positive``, ``non-negative``, ``between 0 and 1`` or ``between 0.5 and
        10``. NaN and the infinities are in none of these ranges.
      example: A valid value, for the error.

    Raises:
      TypeError: If the value is not a number.
      ValueError: If it is out of range.
    """
    fix = f"Set {name} to, for example, {example}."
    # bool is a subclass of int, but True given for a number is a mistake.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"Expected {name} to be a number, got {value!r}. {fix}")
    if not _RANGES[wanted](value):
        raise ValueError(f"Expected {name} to be {wanted}, got {value!r}. {fix}")


def check_integer(name: str, value: object, least: int, most: int | None = None) -> None:
    """Checks that a size or an option is an integer in the given range.

    Args:
      name: The option's name.
      value: Its value.
      least: The smallest valid value.
      most: The largest valid value, if there is one.

    Raises:
      TypeError: If the value is not an integer.
      ValueError: If it is out of range.
    """
    wanted = f"at least {least}" if most is None else f"between {least} and {most}"
    fix = f"Set {name} to an integer {'of ' * (most is None)}{wanted}."
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"Expected {name} to be an integer, got {value!r}. {fix}")
    if value < least or (most is not None and value > most):
        raise ValueError(f"Expected {name} to be {wanted}, got {value}. {fix}")


def check_sizes(input_size: int, hidden_size: int) -> None:
    """Checks the sizes of a cell. An input size of 0 is valid: the cell is autonomous.

    Raises:
      TypeError: If a size is not an integer.
      ValueError: If the input size is negative or the hidden size is not positive.
    """
    check_integer("input_size", input_size, 0)
    check_integer("hidden_size", hidden_size, 1)
