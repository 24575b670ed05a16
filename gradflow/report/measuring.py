"""What is measured of one layer over a batch, as a dataset.

Steps are counted in the order in which the layer reads them: step 1 of a layer that reads in
reverse is the last real step of the model. Matrices of whole sequences cost time in proportion to
the cube of the size, and are measured for as many sequences as a budget allows.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from gradflow import flow
from gradflow.cell import Cell, Params
from gradflow.flow.interned import interned
from gradflow.interop import Layer
from gradflow.report import programs
from gradflow.report.facts import Arrays, of_inputs, of_states, of_weights, recurrent
from gradflow.report.losses import Batch, in_reading_order
from gradflow.report.programs import (
    FULL_MAP,
    Call,
    Settings,
    matrices,
    program,
    program_of_runs,
    vectors,
)

if TYPE_CHECKING:
    import xarray

BUDGET = 6e10
"""Multiplications and additions that the norms of one layer may take, and those of its map."""

MOST_SEQUENCES = 16
"""Sequences beyond which more of them hardly narrow an interval."""


def measure_layer(
    layer: Layer, batch: Batch, gradients: Float[np.ndarray, "n t output"]
) -> "xarray.Dataset":
    """Measures the gradient flow of one layer over a batch.

    Args:
      layer: The layer.
      batch: Its inputs, in the time of the model.
      gradients: ∂L/∂h_t for each sequence and step, in the time of the model.

    Returns:
      A dataset with the dimensions run (sequences), norm_run (those whose norms are measured),
      step, lag, later, earlier, spectrum_lag, index, exponent, gate, use, path, unit, matrix and
      others; log norms in nats.
    """
    import xarray

    steps = int(batch.lengths.max())
    settings = _settings(layer, steps)
    (of_longest, given), (of_each, all_given) = calls(layer, batch, gradients)
    x, g = in_reading_order(layer, batch, batch.inputs, gradients)
    whole = of_longest(*given)
    # Eigenvalues keep one core busy for seconds, and a compiled program hardly more than one.
    with ThreadPoolExecutor(1) as beside:
        eigenvalues = beside.submit(_eigenvalues, whole["jacobians"])
        weights = beside.submit(of_weights, layer.params)
        each = of_each(*all_given)
        norms = log_norms(layer.cell, layer.params, x, batch.lengths)
        arrays: Arrays = {"log_norm": (("norm_run", "lag"), norms)}
        arrays |= _of_matrices(whole, eigenvalues.result()) | _of_vectors(each, batch.lengths)
        arrays |= of_states(each["outputs"], batch.lengths) | weights.result()
        arrays |= of_inputs(x, batch.lengths)
    arrays["output_gradient"] = (("unit",), np.abs(g).sum(axis=(0, 1)))
    coords = {
        "lag": np.arange(steps + 1),
        "step": np.arange(1, steps + 1),
        "spectrum_lag": np.asarray(settings.lags),
        "later": np.asarray(settings.rows or range(steps + 1)),
        "earlier": np.arange(steps + 1),
        "gate": list(each.get("gates", {})),
        "use": list(programs.USES),
        "path": list(flow.StepsByPath._fields),
        "matrix": list(recurrent(layer.params)),
    }
    used = {dim for dims, _ in arrays.values() for dim in dims}
    return xarray.Dataset(arrays, {name: value for name, value in coords.items() if name in used})


def calls(
    layer: Layer, batch: Batch, gradients: Float[np.ndarray, "n t output"]
) -> tuple[Call, Call]:
    """Returns what measures the longest sequence, and what measures all of them, for a layer."""
    x, g = in_reading_order(layer, batch, batch.inputs, gradients)
    settings = _settings(layer, x.shape[1])
    return (
        (program(matrices, layer.cell, settings), (layer.params, x[int(batch.lengths.argmax())])),
        (program_of_runs(vectors, layer.cell), (layer.params, x, g, batch.lengths)),
    )


def log_norms(
    cell: Cell, params: Params, x: Float[np.ndarray, "n t input"], lengths: np.ndarray
) -> Float[np.ndarray, "runs lags"]:
    """Measures log ‖∂h_T/∂h_k‖ by lag, with T the last real step, of as many as the budget allows.

    NaN at lags beyond the start of a sequence.
    """
    program, args = call_of_norms(cell, params, x, lengths)
    return from_lag_0(program(*args), lengths)


def from_lag_0(
    found: Float[np.ndarray, "runs lags"], lengths: np.ndarray
) -> Float[np.ndarray, "runs lags"]:
    """Moves norms, of which the padded steps come first, so that the first one is at lag 0."""
    moved = np.full_like(found, np.nan)
    for row, norms, length in zip(moved, found, lengths, strict=False):
        row[: length + 1] = norms[found.shape[1] - 1 - length :]
    return moved


def call_of_norms(cell: Cell, params: Params, x: np.ndarray, lengths: np.ndarray) -> Call:
    """Returns what measures the norms of as many sequences as the budget allows."""
    count = affordable(cell, params, x)
    return program_of_runs(programs.norms, interned(cell)), (params, x[:count], lengths[:count])


def affordable(cell: Cell, params: Params, x: Float[np.ndarray, "n t input"]) -> int:
    """Returns for how many sequences the budget allows to measure norms.

    In float32 the budget is half as large: orders of magnitude are wanted there.
    """
    budget, least = (BUDGET, 2) if x.dtype == np.float64 else (BUDGET / 2, 1)
    count = int(max(least, budget // _operations(cell, params, x.shape[1])))
    return min(count, MOST_SEQUENCES, len(x))


def median_over_runs(curves: Float[np.ndarray, "runs lags"]) -> Float[np.ndarray, " lags"]:
    """Returns the median over the runs that reach each lag; NaN where none does."""
    found = np.full(curves.shape[1], np.nan)
    known = ~np.isnan(curves).all(axis=0)
    found[known] = np.nanmedian(curves[:, known], axis=0)
    return found


def _operations(cell: Cell, params: Params, steps: int) -> int:
    """Multiplications and additions that pull all rows of h back through that many steps."""
    size = sum(np.size(W) for W in recurrent(params).values())
    return 2 * programs.output_size(cell) * max(1, size) * steps


def _settings(layer: Layer, steps: int) -> Settings:
    lags = [lag for lag in (1, 3, 10, 30, 100, 300, 1000, 3000) if lag < steps]
    lags = (*lags[-4:], steps)
    size = programs.carry_size(layer.cell)
    if size <= FULL_MAP[0] and steps <= FULL_MAP[1]:
        return Settings(lags, ())
    each = _operations(layer.cell, layer.params, steps)
    count = min(steps, int(np.clip(BUDGET // each, 6, 32)))
    rows = np.linspace(steps / count, steps, count).astype(int)
    return Settings(lags, tuple(int(row) for row in rows))


def _of_matrices(found: dict[str, Any], eigenvalues: np.ndarray) -> Arrays:
    arrays: Arrays = {
        "log_singular_value": (("spectrum_lag", "index"), found["values"]),
        "log_norm_map": (("later", "earlier"), found["map"]),
        "lyapunov_exponent": (("exponent",), found["exponents"]),
        "eigenvalue": (("place", "entry", "part"), eigenvalues),
    }
    if "paths" in found:
        arrays["steps_by_path"] = (("path", "lag"), found["paths"])
    return arrays


def _eigenvalues(jacobians: Float[np.ndarray, "places n n"]) -> Float[np.ndarray, "places n 2"]:
    if not np.isfinite(jacobians).all():
        return np.full((*jacobians.shape[:2], 2), np.nan)
    found = np.linalg.eigvals(jacobians)
    return np.stack([found.real, found.imag], axis=-1)


def _of_vectors(found: dict[str, Any], lengths: np.ndarray) -> Arrays:
    real = np.arange(1, found["outputs"].shape[1] + 1) <= lengths[:, None]
    arrays: Arrays = {
        name: (("run", "step"), np.where(real, found[name], np.nan))
        for name in ("log_adjoint_norm", "log_component")
    }
    arrays |= {name: (("run",), found[name]) for name in ("first_nonfinite", "log_gradient_norm")}
    if found.get("gates"):
        usage = np.stack(list(found["gates"].values()))  # (gate, run, use, step)
        mean = np.where(real[:, None], usage, 0).sum(axis=1) / real.sum(axis=0)
        arrays["gate_usage"] = (("gate", "use", "step"), mean)
    return arrays
