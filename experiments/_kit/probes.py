"""Probes in the studies: flags, variables of the record, heat maps.

A study measures with `gradflow.train.probes.prober`, puts `record` into its own, with a dimension
``probe_update`` or ``probe_epoch``, and gives each of `rows` a part of its figure.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import xarray

from _kit.curves import CUT
from gradflow import Cell, study
from gradflow.spec import split_specs
from gradflow.study.figure import SubFigure
from gradflow.train.probes import resolve_probes

ROW_HEIGHT = 1.5
"""The height of a row of maps in inches."""

MAPS = {
    "log_norms": r"$\log_{10}\,\|\partial h_T/\partial h_k\|$",
    "adjoints": r"$\log_{10}\,\|\partial L/\partial h_k\|$ / max",
    "components": r"$\log_{10}$ component of $\partial L/\partial W_h$",
    "spectrum": r"$\log_{10}\,\sigma$ of $\partial h_T/\partial h_0$",
    "gates": "fraction saturated",
}

AXES = {"step": "step k", "lag": "lag T − k", "index": "index"}

Variable = tuple[tuple[str, ...], np.ndarray]


def flag() -> Any:
    """The field ``probe`` of a configuration."""
    return study.field(
        "", help="Probes, separated by commas: adjoints, components, gates, log_norms, spectrum."
    )


def every_flag() -> Any:
    """The field ``probe_every`` of a configuration that counts in updates."""
    return study.field(
        None, help="Updates between two probings; by default as the evaluations.", positive=True
    )


def names(specs: str, cell: Cell) -> tuple[str, ...]:
    """Returns the probes of one of several cells: those asked for, gates only if it has gates.

    Raises:
      ValueError: For an unknown probe, or if a cell without gates is asked for gates alone.
    """
    asked = split_specs(specs)
    kept = [name for name in asked if name != "gates" or cell.gates is not None]
    return resolve_probes(",".join(kept or asked), cell)


def variables(
    probes: Mapping[str, np.ndarray],
    dims: Sequence[str],
    *,
    axis: Literal["step", "lag"] = "step",
) -> dict[str, Variable]:
    """Returns the probes as variables of a dataset: from step 0 on, the gates together.

    Args:
      probes: By name, as a `Prober` returns them, behind axes of the caller's.
      dims: The names of those axes.
      axis: Whether the last axis is the step k or the lag T - k.
    """
    found, gates = {}, []
    for name, values in sorted(probes.items()):
        if name == "components" or name.startswith("gates."):  # they begin at step 1
            first = np.full((*values.shape[:-1], 1), np.nan)
            values = np.concatenate([first, values], axis=-1)
        if name != "spectrum" and axis == "lag":
            values = values[..., ::-1]
        if name.startswith("gates."):
            gates.append(values)
        else:
            found[name] = ((*dims, "index" if name == "spectrum" else axis), values)
    return {**found, **({"gates": ((*dims, "gate", axis), np.stack(gates, -2))} if gates else {})}


def coordinates(probes: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the coordinates ``gate`` and ``index`` of `variables`, where it has them."""
    gates = sorted(name.partition(".")[2] for name in probes if name.startswith("gates."))
    found: dict[str, Any] = {"gate": gates} if gates else {}
    if "spectrum" in probes:
        found["index"] = np.arange(np.shape(probes["spectrum"])[-1])
    return found


def record(
    probes: Mapping[str, np.ndarray],
    dims: Sequence[str],
    times: Any,
    *,
    axis: Literal["step", "lag"] = "step",
) -> tuple[dict[str, Variable], dict[str, Any]]:
    """Returns the probes as variables and coordinates of a record: none of either without probes.

    Args:
      probes: As `variables` takes them.
      dims: The names of the axes in front, that of time last.
      times: The coordinate of that axis.
      axis: As `variables` takes it.
    """
    if not probes:
        return {}, {}
    return variables(probes, dims, axis=axis), {dims[-1]: times, **coordinates(probes)}


def rows(dataset: xarray.Dataset) -> list[tuple[str, str | None]]:
    """Returns the rows of maps of a record: a probe, and for gates the name of one."""
    names = [name for name in MAPS if name in dataset and name != "gates"]
    gates = dataset.gate.values if "gates" in dataset else []
    return [*((name, None) for name in names), *(("gates", str(gate)) for gate in gates)]


def image(data: xarray.Dataset, name: str, gate: str | None = None) -> xarray.DataArray:
    """Computes the median over seeds of a probe, (time, step or lag or index); logs to base 10."""
    values = data[name] if gate is None else data[name].sel(gate=gate)
    time = next(dim for dim in values.dims if str(dim).startswith("probe_"))
    found = values.median("seed").transpose(time, ...)
    if name == "gates":
        return found
    found = found / np.log(10)
    return found - found.max(found.dims[-1]) if name == "adjoints" else found


def draw(
    part: SubFigure,
    images: Mapping[str, xarray.DataArray],
    name: str,
    gate: str | None = None,
    *,
    state: str = "h",
) -> None:
    """Draws a row of heat maps over time, one for each title, all in one scale.

    Args:
      part: Where.
      images: From `image`.
      name: The probe.
      gate: Which of the gates.
      state: The symbol of the state: h, or s for the whole carry.
    """
    panels = part.subplots(1, len(images), sharey=True, squeeze=False)[0]
    finite = np.concatenate([shown.values[np.isfinite(shown.values)] for shown in images.values()])
    # A fraction is drawn from 0 to 1: one that is 0 throughout would have no scale.
    low, high = (finite.min(), finite.max()) if finite.size and gate is None else (0.0, 1.0)
    look: dict[str, Any] = {"vmin": low, "vmax": high, "rasterized": True}
    meshes, axis = [], str(next(iter(images.values())).dims[-1])
    for panel, (title, found) in zip(panels, images.items(), strict=True):
        panel.set_facecolor(CUT)
        panel.grid(False)
        shown = np.where(np.isfinite(found), found, np.nan)
        meshes.append(panel.pcolormesh(found[found.dims[0]], found[axis], shown.T, **look))
        panel.set_title(title, fontsize=8)
    panels[0].set_ylabel(AXES[axis])
    label = MAPS[name].replace(r"\partial h", rf"\partial {state}")
    part.colorbar(meshes[0], ax=list(panels)).set_label(
        f"{gate}: {label}" if gate else label, fontsize=7
    )


def draw_rows(
    parts: Sequence[SubFigure],
    dataset: xarray.Dataset,
    nets: Mapping[str, xarray.Dataset],
    *,
    time: str = "update",
    state: str = "h",
) -> None:
    """Draws each of `rows` into a part: a map for each network that has the probe, by title."""
    for part, (name, gate) in zip(parts, rows(dataset), strict=True):
        images = {title: image(data, name, gate) for title, data in nets.items()}
        probed = {
            title: found.dropna(found.dims[-1], how="all")
            for title, found in images.items()
            if bool(found.notnull().any())
        }
        draw(part, probed or images, name, gate, state=state)
    if parts:
        parts[-1].supxlabel(time, fontsize=9)
