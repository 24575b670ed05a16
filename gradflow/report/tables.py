"""The tables of a layer, from its dataset."""

from typing import TYPE_CHECKING

import numpy as np

from gradflow.report.advice import result_of
from gradflow.report.measuring import median_over_runs
from gradflow.report.parts import Level, Table, magnitude, number, steps_text

if TYPE_CHECKING:
    import xarray

MARKS: dict[str, Level] = {"repairs": "good", "helps": "warning", "does not help": "unknown"}


def tables(data: "xarray.Dataset", needed_lag: int) -> tuple[Table, ...]:
    """The measured advice, the settings of a training, and the recurrent matrices."""
    found = [changes(data, needed_lag)] if "change" in data else []
    if not np.isnan(data.log_gradient_norm).all():  # nothing follows from a gradient of NaN
        found.append(training(data))
    return (*found, matrices(data))


def changes(data: "xarray.Dataset", needed_lag: int) -> Table:
    """Every change that was tried, and whether it helps."""
    before, longest = float(data.log_norm_before), data.sizes["lag"] - 1
    rows, levels = [], []
    for name in data.change.values:
        one = data.sel(change=name)
        after = float(one.change_log_norm)
        result = result_of(before, after)
        rows.append(
            (
                *(str(name), str(one.change_kind.values)),
                steps_text(float(data.horizon_before), longest),
                steps_text(float(one.change_horizon), longest),
                f"{magnitude(before)} → {magnitude(after)}",
                result,
            )
        )
        levels.append(MARKS[result])
    return Table(
        "Measured advice",
        "Each change was applied to a copy and measured again, before any training. It helps if "
        "the norm comes nearer to 1 by a factor of 2 or more; it repairs if the norm then lies "
        "between 1e-3 and 1e3.",
        ("change", "weights", "horizon before", "after", f"norm at lag {needed_lag}", "effect"),
        tuple(rows),
        tuple(levels),
    )


def training(data: "xarray.Dataset") -> Table:
    """A threshold for clipping and a length for truncation, from what was measured."""
    gradients = data.log_gradient_norm.values
    curve = median_over_runs(data.log_norm.values)
    reaching = np.flatnonzero(curve > np.log(1e-3))
    reach = int(reaching[-1]) if len(reaching) else 0
    longest = data.sizes["lag"] - 1
    rows = (
        (
            "clip the norm of the gradient at",
            magnitude(float(np.nanmedian(gradients))),
            f"median of ‖∂L/∂θ‖ over {len(gradients)} sequences; the largest is "
            f"{magnitude(float(np.nanmax(gradients)))}",
        ),
        (
            "truncate no shorter than",
            f"{reach} steps" if reach < longest else f"{longest} steps, the whole sequence",
            "the last lag at which the norm is above 1e-3",
        ),
    )
    return Table(
        "Settings of a training",
        "Read from the measurements of these sequences, for the loss of this report.",
        ("setting", "value", "why"),
        rows,
    )


def matrices(data: "xarray.Dataset") -> Table:
    """Spectral radius and norm of every recurrent matrix."""
    rows = []
    for place, name in enumerate(data.matrix.values):
        radius = float(data.spectral_radius[place])
        shown = "not square" if np.isnan(radius) else number(radius)
        rows.append((str(name), shown, number(float(data.spectral_norm[place]))))
    return Table(
        "Recurrent matrices",
        "A linear network with this W_h would shrink or grow by the spectral radius per step.",
        ("matrix", "spectral radius", "spectral norm"),
        tuple(rows),
    )
