"""The records of the jobs of a sweep as one dataset, with a dimension for each swept flag."""

import json
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gradflow.study.claims import Claim
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
    parts, statements = [], {}
    for texts, record in records:
        point = {name: labels[name][value] for name, value in texts.items()}
        claims = _claims(experiment, record)
        statements |= {one.id: one.statement for one in claims}
        numbers = _numbers(claims).expand_dims({name: [value] for name, value in point.items()})
        parts.append((point, _expanded(record, point).merge(numbers)))
    try:
        whole = _joined(parts, list(axes))
    except ValueError as error:
        raise ValueError(
            f"Expected records of the jobs that can be joined, but: {error}. The records of the "
            "jobs stay as they are. Remove the flag that changes that dimension from the sweep."
        ) from None
    whole = whole.reindex({name: list(found.values()) for name, found in labels.items()})
    # Not those that joining keeps: one may be left that is dropped within another group of records.
    first = records[0][1].attrs
    whole.attrs = {
        name: value
        for name, value in first.items()
        if all(name in r.attrs and np.array_equal(r.attrs[name], value) for _, r in records)
    }
    return whole.assign_attrs(
        sweep=to_json({name: list(found) for name, found in axes.items()}),
        statements=to_json(statements),
    )


def _labels(values: Mapping[str, Any]) -> list[Any]:
    numeric = all(isinstance(one, int | float) and one is not True for one in values.values())
    return [one if numeric else text(one) for one in values.values()]


def _expanded(record: "xarray.Dataset", point: Mapping[str, Any]) -> "xarray.Dataset":
    for name in point:
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
    own = {name: [value] for name, value in point.items() if name in record.dims}
    new = {name: [value] for name, value in point.items() if name not in record.dims}
    # A coordinate of the name of a swept flag says what the new coordinate says.
    return record.assign_coords(own).drop_vars(new, errors="ignore").expand_dims(new)


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


def _claims(experiment: Experiment, record: "xarray.Dataset") -> list[Claim]:
    """The claims of a record for which a number is measured, in the precision of its run."""
    config = Config(precision=json.loads(record.attrs["config"])["precision"])
    with precision(config):
        return [one for one in experiment.claims(record) if one.measured]


def _numbers(claims: Sequence[Claim]) -> "xarray.Dataset":
    import xarray

    numbers = [one.measured[0] for one in claims]
    rows = [(one.value, *(one.interval or (np.nan, np.nan))) for one in numbers]
    columns = np.reshape(rows, (len(rows), len(NUMBERS))).T
    variables = {name: (CLAIM, column) for name, column in zip(NUMBERS, columns, strict=True)}
    return xarray.Dataset(variables, coords={CLAIM: [one.id for one in claims]})
