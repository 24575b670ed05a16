"""The records of the jobs of a sweep as one dataset, with a dimension for each swept flag."""

import json
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gradflow.study.config import Config, text
from gradflow.study.experiment import Experiment
from gradflow.study.settings import precision
from gradflow.study.store import to_json
from gradflow.study.sweep.request import Axes

if TYPE_CHECKING:
    import xarray

CLAIM, NUMBERS = "claim", ("measured", "measured_low", "measured_high")
"""The dimension and the variables of the first number that is measured for each claim."""

Records = Sequence["tuple[Mapping[str, str], xarray.Dataset]"]
"""The value of each swept flag, as it is typed, and the record of that job."""


def merge(experiment: Experiment, axes: Axes, records: Records) -> "xarray.Dataset":
    """Joins the records of the jobs along the swept flags.

    A record that has a dimension of a flag's name keeps it, with the value of the flag as its
    coordinate. Along dimensions with coordinates the records are joined by these; what a record
    lacks, and the combinations without a record, are NaN (text is empty).

    Returns:
      What the study recorded, and the first number that is measured for each claim, with the ends
      of its 95 % interval: ``measured``, ``measured_low`` and ``measured_high``.

    Raises:
      ValueError: If the records cannot be joined.
    """
    labels = {name: dict(zip(axes[name], _labels(axes[name]), strict=True)) for name in axes}
    points = [
        ({name: labels[name][value] for name, value in point.items()}, record)
        for point, record in records
    ]
    parts = [
        (point, _expanded(record.merge(_numbers(experiment, record)), point))
        for point, record in points
    ]
    statements = {
        one.id: one.statement for _, record in records for one in experiment.claims(record)
    }
    try:
        whole = _joined(parts, list(axes))
    except ValueError as error:
        raise ValueError(
            f"Expected records of the jobs that can be joined, but: {error}. The records of the "
            "jobs stay as they are. Remove the flag that changes that dimension from the sweep."
        ) from None
    whole = whole.reindex({name: list(found.values()) for name, found in labels.items()})
    return whole.assign_attrs(
        sweep=to_json({name: list(found) for name, found in axes.items()}),
        statements=to_json(statements),
    )


def _labels(values: Mapping[str, Any]) -> list[Any]:
    numeric = all(isinstance(one, int | float) and one is not True for one in values.values())
    return [one if numeric else text(one) for one in values.values()]


def _expanded(record: "xarray.Dataset", point: Mapping[str, Any]) -> "xarray.Dataset":
    for name, value in point.items():
        if record.sizes.get(name, 1) != 1:
            raise ValueError(
                f"Expected records of one {name} to join along {name}, got one of "
                f"{record.sizes[name]}. Give each job one value of --{name}."
            )
        if name in record.data_vars:
            raise ValueError(
                f"Expected records without a variable {name} to join along a dimension of that "
                f"name. Sweep another flag than --{name}."
            )
        if name in record.dims:
            record = record.assign_coords({name: [value]})
        else:
            record = record.drop_vars(name, errors="ignore").expand_dims({name: [value]})
    return record


def _joined(
    parts: "Sequence[tuple[Mapping[str, Any], xarray.Dataset]]", names: Sequence[str]
) -> "xarray.Dataset":
    """Joins along one swept flag after the other, so that each step is a plain concatenation."""
    import xarray

    if not names:
        ((_, record),) = parts
        return record
    first, *rest = names
    groups: dict[Hashable, list] = {}
    for point, record in parts:
        groups.setdefault(point[first], []).append((point, record))
    return xarray.concat(
        [_joined(group, rest) for group in groups.values()],
        dim=first,
        join="outer",
        data_vars="different",
        coords="different",
        compat="equals",
        combine_attrs="drop_conflicts",
    )


def _numbers(experiment: Experiment, record: "xarray.Dataset") -> "xarray.Dataset":
    """The first number that is measured for each claim of a record."""
    import xarray

    config = Config(precision=json.loads(record.attrs["config"])["precision"])
    with precision(config):
        claims = [one for one in experiment.claims(record) if one.measured]
    numbers = [one.measured[0] for one in claims]
    nan = float("nan")
    rows = [(one.value, *(one.interval or (nan, nan))) for one in numbers]
    columns = zip(*rows, strict=True) if rows else ((), (), ())
    return xarray.Dataset(
        {name: (CLAIM, list(column)) for name, column in zip(NUMBERS, columns, strict=True)},
        coords={CLAIM: [one.id for one in claims]},
    )
