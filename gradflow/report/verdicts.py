"""The claims of a diagnosis, with their verdicts."""

from typing import TYPE_CHECKING

import numpy as np

from gradflow import study
from gradflow.flow.summary import HORIZON
from gradflow.report.measuring import median_over_runs
from gradflow.report.sections import layer_data

if TYPE_CHECKING:
    import xarray

UNIT = "log10 of the norm"


def arrives(dataset: "xarray.Dataset") -> study.Claim:
    """Claims that the gradient of every layer reaches the needed lag."""
    norms = {}
    for data in _layers(dataset):
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
    for data in _layers(dataset):
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


def _layers(dataset: "xarray.Dataset") -> list["xarray.Dataset"]:
    return [layer_data(dataset, i) for i in range(int(dataset.attrs["num_layers"]))]
