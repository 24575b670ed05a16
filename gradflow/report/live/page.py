"""The page of a watched training, from its record."""

from typing import TYPE_CHECKING

import numpy as np

from gradflow.report.panels import LAG, NORM, saturation
from gradflow.report.parts import (
    NATS,
    Finding,
    Image,
    Level,
    Line,
    Panel,
    Report,
    Section,
    gaps,
    steps_text,
)

if TYPE_CHECKING:
    import xarray


def report_of(dataset: "xarray.Dataset", framework: str) -> Report:
    """Returns the report of a training.

    Args:
      dataset: What the ``dataset`` of a monitor, or `read_watch`, returns.
      framework: Where the model comes from.

    Raises:
      ValueError: If nothing was measured.
    """
    if not dataset.sizes["layer"]:
        raise ValueError("Expected measurements of a training, got none. Train for some updates.")
    sections = tuple(_section(dataset.sel(layer=name)) for name in dataset.layer.values)
    updates = dataset["update"].values
    lead = next((s for s in sections if s.level == "bad"), sections[0])
    return Report(
        title=f"Gradient flow during training, updates {updates[0]} to {updates[-1]}",
        lead=f"{lead.name}: {lead.summary}",
        sections=sections,
        facts=(
            ("framework", framework),
            ("measurements", str(len(updates))),
            ("seconds for them", f"{float(dataset.seconds.sum()):.1f}"),
        ),
    )


def _section(data: "xarray.Dataset") -> Section:
    reach, finite = _reach(data), _finite(data)
    findings = (reach, finite)
    panels = [_horizons(data), _norms(data), _map(data)]
    if data.sizes["gate"]:
        panels.append(_saturation(data))
    shown = finite if finite.level == "bad" else reach
    return Section(
        name=str(data.layer.values),
        summary=shown.sentence,
        level=shown.level,
        facts=(),
        findings=findings,
        panels=tuple(panels),
    )


def _reach(data: "xarray.Dataset") -> Finding:
    """How the horizon changed from the first measurement to the last that is finite."""
    horizon = data.horizon.values[np.isfinite(data.factor.values)]
    if not len(horizon):
        return Finding("Reach", "No update had a gradient of finite size.", "bad")
    needed = int(np.nanmax(data.needed_lag.values))
    first, last = (steps_text(float(one), needed) for one in (horizon[0], horizon[-1]))
    level: Level = "good" if horizon[-1] >= needed else "bad"
    sentence = f"‖∂h_T/∂h_k‖ fell below 1e-3 after {first} steps at first and {last} at the end"
    return Finding("Reach", f"{sentence}; the loss needs {needed}.", level)


def _finite(data: "xarray.Dataset") -> Finding:
    steps = data.nonfinite_step.values
    bad = np.flatnonzero(steps >= 0)
    if not len(bad):
        return Finding("Finite", "All states were finite at every measured update.", "good")
    update, step = int(data["update"][bad[0]]), int(steps[bad[0]])
    sentence = f"The states were not finite from step {step} on at update {update}"
    return Finding("Finite", f"{sentence}, the first such update that was measured.", "bad")


def _horizons(data: "xarray.Dataset") -> Panel:
    horizon = gaps(data.horizon.values)
    needed = float(np.nanmax(data.needed_lag.values))
    return Panel(
        "Horizon by update",
        "The lag at which the gradient is below 1e-3. Where there is no point, it never is.",
        "update",
        "horizon (steps)",
        lines=(Line("horizon", data["update"].values, horizon),),
        levels=(("needed", needed),),
    )


def _norms(data: "xarray.Dataset") -> Panel:
    """The curves of the first, the middle and the last measurement."""
    count = data.sizes["update"]
    chosen = sorted({0, count // 2, count - 1})
    curves, updates = gaps(data.log_norms.values / NATS), data["update"].values
    return Panel(
        "Norm against lag",
        "Median over the watched sequences, at the first, a middle and the last measured update.",
        LAG,
        NORM,
        lines=tuple(Line(f"update {updates[i]}", data.lag.values, curves[i]) for i in chosen),
        levels=(("1e-3", -3.0),),
    )


def _map(data: "xarray.Dataset") -> Panel:
    values = gaps(data.log_norms.values / NATS)
    return Panel(
        "Norm by update and lag",
        "Each row is the norm against lag at one measured update.",
        LAG,
        "update",
        image=Image(data.lag.values, data["update"].values, values, NORM),
    )


def _saturation(data: "xarray.Dataset") -> Panel:
    updates, parts = data["update"].values, data.saturation
    return saturation(
        "update",
        (
            Line(f"{gate} {end}", updates, parts.sel(gate=gate, end=end).values)
            for gate in data.gate.values
            for end in data.end.values
            if np.isfinite(parts.sel(gate=gate, end=end)).any()
        ),
    )
