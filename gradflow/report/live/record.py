"""The record of a watched training: lines of JSON, and the dataset of what is in them."""

import contextlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gradflow.report.live.measure import Measured

if TYPE_CHECKING:
    import xarray

FILE = "watch.jsonl"
"""The name of the record in its folder."""

MOST_LAGS = 257
"""The number of lags of a curve that are kept; of longer ones they are evenly spaced."""


UNITS = {
    "log_norms": "nats",
    "horizon": "steps",
    "factor": "per step",
    "nonfinite_step": "step",
    "needed_lag": "steps",
    "saturation": "fraction",
}
"""The variables of the dataset with their units; the step is -1 where all is finite."""


class Record:
    """Appends lines to a file, each by one write: a kill damages the last line at most.

    The file may have the records of earlier trainings, which are kept: each begins with a line that
    has the key ``session``.

    Args:
      folder: The folder, made if there is none.
      settings: The first line of this record.

    Raises:
      OSError: If the file cannot be written.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / FILE
        self.lines: list[dict[str, Any]] = []
        self._append({"session": settings})

    def add(self, line: dict[str, Any]) -> None:
        """Appends what was found at an update.

        Raises:
          OSError: If it cannot be written, such as on a full disk. It is kept in memory.
        """
        self.lines.append(line)
        self._append(line)

    def _append(self, line: Mapping[str, Any]) -> None:
        text = json.dumps(line, allow_nan=False) + "\n"
        file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            size = os.fstat(file).st_size
            if size and os.pread(file, 1, size - 1) != b"\n":
                text = "\n" + text  # the line before was cut by a kill
            os.write(file, text.encode())
        finally:
            os.close(file)


def line_of(name: str, measured: Measured, needed: int) -> dict[str, Any]:
    """Returns what was measured of a layer in the form that is written."""
    last = len(measured.log_norms) - 1
    lags = np.unique(np.linspace(0, last, min(last + 1, MOST_LAGS)).round().astype(int))
    return {
        "name": name,
        "steps": last,
        "needed_lag": needed,
        "horizon": _written(measured.horizon),
        "factor": _written(measured.factor),
        "nonfinite_step": measured.nonfinite_step,
        "saturation": {
            gate: [_written(part) for part in parts] for gate, parts in measured.saturation.items()
        },
        "lags": lags.tolist(),
        "log_norms": [_written(value) for value in measured.log_norms[lags]],
    }


def _written(value: float) -> float | str | None:
    """Returns a number as JSON can have it: NaN as null, infinities as text."""
    if math.isnan(value):
        return None
    return float(f"{value:.9g}") if math.isfinite(value) else str(float(value))


def _read(value: float | str | None) -> float:
    return math.nan if value is None else float(value)


def read_watch(folder: str | os.PathLike[str]) -> "xarray.Dataset":
    """Reads the newest record of a folder, also of a training that runs or was killed.

    Returns:
      The dataset that the ``dataset`` of the monitor returns.

    Raises:
      ValueError: If there is no record.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        raise ValueError(
            f"Expected {FILE} in {str(folder)!r}, got none. Give the folder of gradflow.watch."
        )
    lines: list[dict[str, Any]] = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError):  # a line that was cut by a kill
            line = json.loads(text)
            lines = [] if "session" in line else [*lines, line]
    return dataset_of(lines)


def dataset_of(lines: Iterable[Mapping[str, Any]]) -> "xarray.Dataset":
    """Returns the measurements of a record as a dataset.

    Its dimensions are layer, update, lag, gate and end (``shut`` and ``open``). Values that were
    not measured, such as a lag that a layer does not have, are NaN.
    """
    import xarray

    lines = [line for line in lines if "layers" in line]
    cells = [(line["update"], layer) for line in lines for layer in line["layers"]]
    coords: dict[str, Any] = {
        "layer": _texts(layer["name"] for _, layer in cells),
        "update": sorted({update for update, _ in cells}),
        "lag": sorted({lag for _, layer in cells for lag in layer["lags"]}),
        "gate": _texts(gate for _, layer in cells for gate in layer["saturation"]),
        "end": ["shut", "open"],
    }
    dims = {
        "log_norms": ("layer", "update", "lag"),
        "saturation": ("layer", "update", "gate", "end"),
        **{name: ("layer", "update") for name in UNITS if name not in ("log_norms", "saturation")},
    }
    arrays = {
        name: np.full([len(coords[dim]) for dim in own], np.nan) for name, own in dims.items()
    }
    places = {dim: {value: k for k, value in enumerate(values)} for dim, values in coords.items()}
    for update, layer in cells:
        at = places["layer"][layer["name"]], places["update"][update]
        for name in ("horizon", "factor", "nonfinite_step", "needed_lag"):
            arrays[name][at] = _read(layer[name])
        lags = [places["lag"][lag] for lag in layer["lags"]]
        arrays["log_norms"][(*at, lags)] = [_read(value) for value in layer["log_norms"]]
        for gate, parts in layer["saturation"].items():
            arrays["saturation"][(*at, places["gate"][gate])] = [_read(part) for part in parts]
    found = {name: (own, arrays[name], {"units": UNITS[name]}) for name, own in dims.items()}
    cost = {line["update"]: line["seconds"] for line in lines}
    seconds = ("update", [cost[update] for update in coords["update"]], {"units": "s"})
    return xarray.Dataset(found | {"seconds": seconds}, coords)


def _texts(names: Iterable[str]) -> np.ndarray:
    """Returns names once each, as text also where there are none."""
    return np.array(list(dict.fromkeys(names)), dtype=str)
