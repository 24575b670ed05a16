"""A whole report from the dataset of a diagnosis, and the claims of it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gradflow import study
from gradflow.flow.summary import HORIZON
from gradflow.report import findings as found
from gradflow.report.measuring import median_over_runs
from gradflow.report.nets import layer_data
from gradflow.report.page import worst
from gradflow.report.panels import panels
from gradflow.report.parts import Finding, Report, Section
from gradflow.report.tables import tables

if TYPE_CHECKING:
    import xarray

UNIT = "log10 of the norm"

FACTS = ("cell", "sizes", "direction", "verification", "convention", "note")


def layers_data(dataset: "xarray.Dataset") -> list["xarray.Dataset"]:
    """Returns what was measured of each layer, under the names that `measure_layer` gives."""
    return [layer_data(dataset, f"layer{i}_") for i in range(int(dataset.attrs["num_layers"]))]


def sections(dataset: "xarray.Dataset") -> tuple[Section, ...]:
    """Returns the section of every layer."""
    return tuple(map(_section, layers_data(dataset)))


def _section(data: "xarray.Dataset") -> Section:
    needed = int(data.needed_lag)
    all_found = found.findings(data, needed)
    if "change" in data:
        all_found = (*all_found, found.advice(data, needed))
    return Section(
        name=str(data.name.values),
        summary=_summary(all_found),
        level=worst([one.level for one in (*all_found[:4], *_of_inputs(all_found))]),
        facts=tuple((name, str(data[name].values)) for name in FACTS),
        findings=all_found,
        tables=tables(data, needed),
        panels=panels(data, needed),
    )


def _summary(findings: tuple[Finding, ...]) -> str:
    """What a layer comes to: its reach, the worst of credit, state and readout, and what follows.

    Inputs that are not finite come before all of these, which follow from them.
    Where the gradient arrives, the summary says so, and that the reason for a loss that does not
    fall has to be looked for elsewhere.
    """
    for one in _of_inputs(findings):
        return one.sentence
    reach, credit, state, readout = findings[:4]
    if reach.level != "good":
        return reach.sentence
    if readout.level == "bad" and state.level != "bad":  # no step has credit then
        return f"{reach.sentence} {readout.sentence} {found.BLOCKED}"
    others = [credit, state, readout]
    level = worst([one.level for one in others])
    if level in ("bad", "warning"):
        worst_one = next(one for one in others if one.level == level)
        return f"{reach.sentence} {worst_one.sentence}"
    return f"{reach.sentence} {found.FINE}"


def _of_inputs(findings: tuple[Finding, ...]) -> list[Finding]:
    return [one for one in findings if one.topic == found.INPUTS]


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


def arrives(dataset: "xarray.Dataset") -> study.Claim:
    """Claims that the gradient of every layer reaches the needed lag."""
    norms = {}
    for data in layers_data(dataset):
        median = median_over_runs(data.log_norm.values)
        norms[str(data.name.values)] = float(median[int(data.needed_lag)] / np.log(10))
    reached = [value > np.log10(HORIZON) for value in norms.values()]
    return study.claim(
        "arrives",
        "The gradient of every layer is above 1e-3 at the lag that the task needs.",
        None if np.isnan(list(norms.values())).any() else all(reached),
        measured=[study.Measured(name, value, unit=UNIT) for name, value in norms.items()],
        criterion="the median norm over sequences at the needed lag is above 1e-3",
    )


def is_repaired(dataset: "xarray.Dataset") -> study.Claim:
    """Claims that a measured change brings the norm of every layer between 1e-3 and 1e3."""
    best = {}
    for data in layers_data(dataset):
        after = np.where(np.isfinite(data.change_log_norm), data.change_log_norm, np.inf)
        place = int(np.argmin(np.abs(after)))
        label = f"{data.name.values}, {data.change.values[place]}"
        best[label] = float(after[place] / np.log(10))
    return study.claim(
        "repaired",
        "For every layer a measured change brings the norm at that lag between 1e-3 and 1e3.",
        all(abs(value) <= 3 for value in best.values()),
        measured=[study.Measured(name, value, unit=UNIT) for name, value in best.items()],
        criterion="the median norm at the needed lag, after the best change of a copy",
    )
