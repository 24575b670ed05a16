"""The configuration of an experiment: a frozen dataclass whose fields become flags."""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gradflow.study.provenance import shorten
from gradflow.study.store import plain

LABEL_LENGTH = 60  # characters: file names stay readable, and far below what file systems allow


def field(default: Any, *, help: str, positive: bool = False) -> Any:
    """Declares a field of a configuration.

    Args:
      default: The value unless the command line gives another.
      help: One sentence for ``--helpshort``.
      positive: Whether the number, or every number of the tuple, must be above zero.
    """
    return dataclasses.field(default=default, metadata={"help": help, "positive": positive})


def text(value: Any) -> str:
    """Writes a value as it is typed on a command line."""
    if isinstance(value, tuple):
        return ",".join(text(part) for part in value)
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return str(value)


def example(default: Any) -> str:
    """Writes the end of an error: the default as an example, where there is one."""
    return "." if default is None else f", for example {text(default)}."


def check(field: dataclasses.Field[Any], value: Any) -> None:
    """Refuses a number that no run can have in a field.

    Raises:
      ValueError: If the value, or a number of the tuple, is not finite, not within 32 bits, not
        above zero though it was declared positive, or no seed in the field of that name.
    """
    check_positive(field, value)
    check_seed(field, value)
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, float) and not math.isfinite(number):
            raise ValueError(f"Expected a finite number{example(field.default)}")
        # JAX counts in 32 bits, unless 64-bit types are on.
        if field.name != "seed" and isinstance(number, int) and not -(2**31) <= number < 2**31:
            raise ValueError(f"Expected an integer up to {2**31 - 1}{example(field.default)}")


def check_positive(field: dataclasses.Field[Any], value: Any) -> None:
    """Refuses a number that is not above zero, in a field that was declared positive.

    Raises:
      ValueError: If the value, or a number of the tuple, is zero, negative or not finite.
    """
    numbers = value if isinstance(value, tuple) else (value,)
    if not field.metadata.get("positive") or value is None:
        return
    if not all(0 < number < math.inf for number in numbers):
        kind = "numbers above zero" if isinstance(value, tuple) else "a number above zero"
        raise ValueError(f"Expected {kind}{example(field.default)}")


def check_seed(field: dataclasses.Field[Any], value: Any) -> None:
    """Refuses a number that is not a seed, in the field of that name.

    JAX takes the lower 32 bits of a seed when 64-bit types are off, so that 4294967296 would
    silently be the seed 0.

    Raises:
      ValueError: If the value is not within 0 ... 2^32 - 1.
    """
    if field.name == "seed" and not 0 <= value < 2**32:
        raise ValueError(f"Expected a whole number from 0 to {2**32 - 1}, for example 0.")


@dataclass(frozen=True)
class Config:
    """The configuration that all experiments share; each adds its own fields.

    A field is an int, a float, a bool, a str, a Literal of strings, one of these or None, or a
    tuple of any length of one of these.

    Raises:
      ValueError: If a field declared positive holds a number that is not above zero, or any holds
        a number that is not finite or has more than 32 bits.
    """

    seed: int = field(0, help="Seed of all random numbers of the run.")
    num_seeds: int = field(8, help="Number of independent repetitions, vectorised.", positive=True)
    precision: Literal["float64", "float32"] = field(
        "float64", help="Floating-point precision of the run."
    )

    def __post_init__(self) -> None:
        for one in dataclasses.fields(self):
            value = getattr(self, one.name)
            try:
                check(one, value)
            except ValueError as error:
                raise ValueError(f"{one.name}={text(value)}: {error}") from None


def identity(name: str, config: Config, files: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Returns what distinguishes one run from another.

    Args:
      name: The experiment's name.
      config: Its configuration.
      files: The digests of the files that it reads, by name (`gradflow.study.sources`).
    """
    about = {"experiment": name, "config": dataclasses.asdict(config)}
    return {**about, "files": dict(files)} if files else about


def digest(*parts: Any) -> str:
    """Returns eight hexadecimal digits that identify the parts, whatever the order of keys."""
    return hashlib.sha256(json.dumps(plain(parts), sort_keys=True).encode()).hexdigest()[:8]


def sanitise(name: str) -> str:
    """Makes a name safe as part of a file's: plain letters, digits and ``._+=,-``, cut short."""
    return re.sub(r"[^A-Za-z0-9._+=,-]+", "_", name)[:LABEL_LENGTH].strip("_.,")


def label(config: Config) -> str:
    """Names the fields that differ from their defaults; ``default`` if none does."""
    changed = [
        f"{one.name}={shorten(text(getattr(config, one.name)))}"
        for one in dataclasses.fields(config)
        if getattr(config, one.name) != one.default
    ]
    return sanitise(",".join(changed)) or "default"


def differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Lists, field by field, where a recorded configuration differs from the wanted one."""
    absent = object()
    pairs = {
        name: (stored.get(name, absent), wanted.get(name, absent)) for name in {**stored, **wanted}
    }
    shown = {
        name: ["absent" if side is absent else json.dumps(side) for side in pair]
        for name, pair in pairs.items()
    }
    return [f"{name} is {a} there and {b} here" for name, (a, b) in shown.items() if a != b]
