"""A whole report from the dataset of a diagnosis."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gradflow.report import findings as found
from gradflow.report.page import worst
from gradflow.report.panels import panels
from gradflow.report.parts import Finding, Report, Section
from gradflow.report.tables import tables

if TYPE_CHECKING:
    import xarray

FACTS = ("cell", "sizes", "direction", "verification", "convention", "note")


def layer_data(dataset: "xarray.Dataset", number: int) -> "xarray.Dataset":
    """Returns what was measured of one layer, under the names that `measure_layer` gives."""
    prefix = f"layer{number}_"
    own = dataset[[name for name in dataset.variables if str(name).startswith(prefix)]]
    names = {str(n): str(n).removeprefix(prefix) for n in {*own.variables, *own.dims}}
    return own.rename(names)


def sections(dataset: "xarray.Dataset") -> tuple[Section, ...]:
    """Returns the section of every layer."""
    return tuple(_section(layer_data(dataset, i)) for i in range(int(dataset.attrs["num_layers"])))


def _section(data: "xarray.Dataset") -> Section:
    needed = int(data.needed_lag)
    all_found = found.findings(data, needed)
    if "change" in data:
        all_found = (*all_found, found.advice(data, needed))
    return Section(
        name=str(data.name.values),
        summary=" ".join(one.sentence for one in _leading(all_found)),
        level=worst([one.level for one in all_found[:4]]),
        facts=tuple((name, str(data[name].values)) for name in FACTS),
        findings=all_found,
        tables=tables(data, needed),
        panels=panels(data, needed),
    )


def _leading(findings: tuple[Finding, ...]) -> list[Finding]:
    """What the summary of a layer says: its reach, and the worst of credit, state and readout."""
    reach, *others = findings[:4]
    level = worst([one.level for one in others])
    is_bad = reach.level == "good" and level in ("bad", "warning")
    return [reach, *(one for one in others if is_bad and one.level == level)][:2]


def rows(dataset: "xarray.Dataset") -> list[dict[str, str]]:
    """Returns one row for each layer, for a table in a terminal."""
    return [
        {"layer": section.name, **{f.topic.lower(): f.level for f in section.findings[:4]}}
        for section in sections(dataset)
    ]


def whole(dataset: "xarray.Dataset", environment: Mapping[str, Any]) -> Report:
    """Returns the report of a diagnosis.

    Args:
      dataset: What was measured.
      environment: Where and how, as a record keeps it.
    """
    every = sections(dataset)
    first = next((one for one in every if one.level == "bad"), every[0])
    number = len(every)
    lead = f"{first.name}: {first.summary}" if number > 1 else first.summary
    left_out = np.atleast_1d(dataset.attrs["left_out"])
    facts = {
        "framework": dataset.attrs["framework"],
        "SHA-256 of the file": dataset.attrs["sha256"],
        **{str(name): value for name, value in environment.items()},
    }
    return Report(
        title=f"Gradient flow of {number} recurrent layer{'s' * (number > 1)}",
        lead=lead,
        sections=every,
        facts=tuple((name, str(value)) for name, value in facts.items()),
        notes=tuple(f"Not diagnosed: {one}." for one in left_out),
    )
