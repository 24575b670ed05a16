"""The form of an entry of the catalogue of measurements."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

Kind = Literal["curve", "curves", "map", "matrices"]
"""How a result is drawn: against its first dimension, with a line for each entry of the last; as
an image; or not by itself."""

Needs = Literal["gates", "lstm", "loss", "losses", "lags"]
"""What a measurement takes beside a cell and a sequence: a cell with gates, an LSTM (a carry with
fields h and c), a loss of the outputs, a loss at every step, or a choice of lags."""


class Variable(NamedTuple):
    """An array that a measurement returns.

    Attributes:
      name: Its name in a dataset.
      dims: The names of its dimensions, all in `catalogue.DIMENSIONS` but for those of leaves.
      units: The unit; "1" where it is dimensionless.
      by_leaf: Whether it is a pytree: the leaves then lie side by side along the last dimension,
        and their names are its coordinate.
    """

    name: str
    dims: tuple[str, ...]
    units: str = "nats"
    by_leaf: bool = False


class Measurement(NamedTuple):
    """An entry of the catalogue.

    Attributes:
      function: The measurement.
      equation: What it computes.
      variables: What it returns, one for each field of its result.
      kind: How it is drawn.
      needs: What it takes beside a cell and a sequence.
      along: The measurement along any path, for `in_chunks`; None if it needs the whole at once.
      read: What is read from the result of the function, where that is not the result itself.
    """

    function: Callable[..., Any]
    equation: str
    variables: tuple[Variable, ...]
    kind: Kind = "curve"
    needs: Needs | None = None
    along: Callable[..., Any] | None = None
    read: Callable[[Any], Any] | None = None

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Returns the result of the function, or what is read from it."""
        found = self.function(*args, **options)
        return found if self.read is None else self.read(found)


def fields(
    prefix: str, names: str, dims: tuple[str, ...], units: str = "nats"
) -> tuple[Variable, ...]:
    """Returns the variables of a result with several fields of the same dimensions."""
    return tuple(Variable(f"{prefix}_{name}", dims, units) for name in names.split())


def bounds(prefix: str, dims: tuple[str, ...]) -> tuple[Variable, ...]:
    """Returns the variables of a `NormCertificate`."""
    return *fields(prefix, "lower upper", dims), Variable(f"{prefix}_stage", dims, "1")


def table(catalogue: Mapping[str, Measurement]) -> str:
    """Returns a catalogue as a Markdown table, as docs/measurements.md has it."""
    rows = ["| measurement | what it computes | variable (dimensions), units |", "|---|---|---|"]
    for name, entry in catalogue.items():
        shapes: dict[str, list[str]] = {}
        for one in entry.variables:
            shapes.setdefault(f"({', '.join(one.dims)}), {one.units}", []).append(f"`{one.name}`")
        results = "; ".join(f"{', '.join(names)} {shape}" for shape, names in shapes.items())
        rows.append(f"| `{name}` | {entry.equation} | {results} |")
    return "\n".join(rows)
