"""Checks of sizes and options, with errors that state the expected range."""

import math

_LARGEST = 2**31 - 1
"""The largest integer that JAX takes as a number, unless x64 is on."""

_RANGES = {
    "finite": math.isfinite,
    "positive": lambda value: 0 < value < math.inf,
    "non-negative": lambda value: 0 <= value < math.inf,
    "between 0 and 1": lambda value: 0 <= value <= 1,
    "between 0.5 and 10": lambda value: 0.5 <= value <= 10,
    "at least 0 and below 1": lambda value: 0 <= value < 1,
}


def shorten(value: object) -> str:
    """Returns a value, such as the error of another library, as one line for an error."""
    text = " ".join(str(value).split())
    return text if len(text) <= 300 else f"{text[:300]} ..."


def check_number(name: str, value: object, wanted: str, *, example: float) -> None:
    """Checks that an option is a number in the given range.

    Args:
      name: The option's name.
      value: Its value.
      wanted: ``finite``, ``positive``, ``non-negative``, ``between 0 and 1``, ``between 0.5 and
        10`` or ``at least 0 and below 1``. NaN and the infinities are in none of these ranges.
      example: A valid value, for the error.

    Raises:
      TypeError: If the value is not a number.
      ValueError: If it is out of range.
    """
    fix = f"Set {name} to, for example, {example}."
    # bool is a subclass of int, but True given for a number is a mistake.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"Expected {name} to be a number, got {shorten(repr(value))}. {fix}")
    if isinstance(value, int) and abs(value) > _LARGEST:
        raise ValueError(
            f"Expected {name} to be an integer up to {_LARGEST} or a decimal number, got an "
            "integer beyond it. Write it with an exponent, such as 1e10."
        )
    if not _RANGES[wanted](value):
        raise ValueError(f"Expected {name} to be {wanted}, got {value!r}. {fix}")


def check_integer(name: str, value: object, least: int, most: int = _LARGEST) -> None:
    """Checks that a size or an option is an integer in the given range.

    Args:
      name: The option's name.
      value: Its value.
      least: The smallest valid value.
      most: The largest valid value.

    Raises:
      TypeError: If the value is not an integer.
      ValueError: If it is out of range.
    """
    is_open = most == _LARGEST
    wanted = f"at least {least}" if is_open else f"between {least} and {most}"
    fix = f"Set {name} to an integer {'of ' * is_open}{wanted}."
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"Expected {name} to be an integer, got {shorten(repr(value))}. {fix}")
    if value > _LARGEST and is_open:
        raise ValueError(f"Expected {name} to be at most {_LARGEST}, got more. Reduce {name}.")
    if not least <= value <= most:
        raise ValueError(f"Expected {name} to be {wanted}, got {value}. {fix}")


def check_flag(name: str, value: object) -> None:
    """Checks that an option is True or False.

    Raises:
      TypeError: If it is anything else, also if it is as good as True or False in a condition.
    """
    if not isinstance(value, bool):
        raise TypeError(
            f"Expected {name} to be True or False, got {shorten(repr(value))}. Set it to one of "
            "these."
        )


def check_text(name: str, value: object) -> None:
    """Checks that an option is a string.

    Raises:
      TypeError: If it is not.
    """
    if not isinstance(value, str):
        raise TypeError(
            f"Expected {name} to be a text, got {shorten(repr(value))}. Write it in quotes."
        )


def check_sizes(input_size: int, hidden_size: int) -> None:
    """Checks the sizes of a cell. An input size of 0 is valid: the cell is autonomous.

    Raises:
      TypeError: If a size is not an integer.
      ValueError: If the input size is negative or the hidden size is not positive.
    """
    check_integer("input_size", input_size, 0)
    check_integer("hidden_size", hidden_size, 1)
