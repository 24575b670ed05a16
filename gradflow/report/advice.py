"""Changes of a layer that may let its gradient reach further, each applied to a copy and measured.

A change of trained parameters changes what the network computes: it is where training would go on.
A change of the cell, or of its initialisation, is measured at initialisation.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np

from gradflow import flow
from gradflow.cell import Params, param_shapes
from gradflow.interop import Layer
from gradflow.report.copies import Copy, median_curves
from gradflow.report.losses import Batch, in_reading_order
from gradflow.report.measuring import affordable, median_over_runs
from gradflow.report.programs import in_float32
from gradflow.report.widths import widened_params
from gradflow.spec import parse_spec

if TYPE_CHECKING:
    import xarray

MOST_SEQUENCES = 4
"""Sequences for which a change is measured; the medians of few tell orders of magnitude."""

NEW = "at initialisation"
KEPT = "other weights kept"


class Change(NamedTuple):
    """A change of a layer.

    Attributes:
      name: What is changed.
      kind: Whether the other weights are kept, or all are initialised again.
      spec: The cell, as `gradflow.cells.resolve` takes it.
      params: Its parameters; None to initialise them.
    """

    name: str
    kind: str
    spec: str
    params: Params | None = None


def changes(layer: Layer, steps: int) -> Iterator[Change]:
    """Lists the changes that are tried on a layer for sequences of that many steps."""
    name = parse_spec(layer.spec)[0]
    keeping = {"lstm": ("f", "forget"), "gru": ("z", "update"), "gru_reset_before": ("z", "update")}
    if name in keeping and (gate := keeping[name][0]) in layer.params:
        yield from _more_memory(layer, gate, keeping[name][1], steps)
    yield Change("orthogonal W_h", KEPT, layer.spec, _recurrent(layer.params, _orthogonal))
    if name == "rnn":
        yield Change(
            "identity W_h", KEPT, layer.spec, _recurrent(layer.params, lambda W: np.eye(len(W)))
        )
    yield Change(f"new {name}", NEW, layer.spec)
    others = {
        "lstm": ["lstm_layer_norm", "gru"],
        "gru": ["gru_layer_norm", "lstm"],
        "gru_reset_before": ["gru_layer_norm", "lstm"],
        "rnn": ["gru", "lstm"],
    }
    for other in others.get(name, []):
        yield Change(f"{other} of the same size", NEW, other)


def _more_memory(layer: Layer, gate: str, word: str, steps: int) -> Iterator[Change]:
    for more in (1, 2):
        yield Change(f"{word} bias + {more}", KEPT, layer.spec, _add(layer.params, gate, more))
    if steps > 2:
        name = f"chrono {word} bias for {steps} steps"
        yield Change(name, KEPT, layer.spec, _chrono(layer.params, gate, steps))


def _add(params: Params, gate: str, more: float) -> Params:
    return params | {gate: params[gate] | {"b": params[gate]["b"] + more}}


def _chrono(params: Params, gate: str, steps: int) -> Params:
    """b = log u with u ~ U(1, T - 1), and the opposite for an input gate; W and the rest stay."""
    like = params[gate]["b"]
    b = np.log(np.random.default_rng(0).uniform(1, steps - 1, like.shape))
    changed = params | {gate: params[gate] | {"b": b}}
    return changed | {"i": params["i"] | {"b": -b}} if "i" in params else changed


def _recurrent(params: Params, change: Callable[[np.ndarray], np.ndarray]) -> Params:
    """Changes every square and finite W_h."""

    def one(path: tuple, leaf: np.ndarray) -> np.ndarray:
        square = leaf.ndim == 2 and leaf.shape[0] == leaf.shape[1] and np.isfinite(leaf).all()
        return change(leaf) if path[-1].key == "W_h" and square else leaf

    return jax.tree_util.tree_map_with_path(one, params)


def _orthogonal(W: np.ndarray) -> np.ndarray:
    """The orthogonal matrix next to W, the factor U Vᵀ of its singular value decomposition."""
    left, _, right = np.linalg.svd(W)
    return left @ right


def copies(layers: Sequence[Layer], batches: Sequence[Batch]) -> list[list[tuple[Change, Copy]]]:
    """Returns every change of each layer with the changed copy.

    Args:
      layers: The layers.
      batches: Their inputs, which may have been widened (`gradflow.report.widths`).
    """
    found = []
    for layer, batch in zip(layers, batches, strict=True):
        (x,) = in_reading_order(layer, batch, batch.inputs)
        # In float32, at half the cost: orders of magnitude are compared here.
        x = x[:MOST_SEQUENCES].astype(np.float32)
        found.append(
            [(one, _copy(layer, one, x, batch.lengths)) for one in changes(layer, x.shape[1])]
        )
    return found


def _copy(layer: Layer, change: Change, x: np.ndarray, lengths: np.ndarray) -> Copy:
    changed, width = replace(layer, spec=change.spec), x.shape[-1]
    cell = replace(changed, input_size=width).cell

    def params() -> Params:
        found = change.params
        if found is None:  # by the size that the layer really has, on which the law depends
            found = changed.cell.init(jax.random.key(0))
        return in_float32(widened_params(found, width))

    count = affordable(cell, param_shapes(cell), x)
    return Copy(cell, params, x[:count], lengths[:count])


def measure_changes(layers: Sequence[Layer], batches: Sequence[Batch]) -> "xarray.Dataset":
    """Applies every change to a copy of each layer, and measures the norms again.

    Args:
      layers: The layers.
      batches: Their inputs, which may have been widened (`gradflow.report.widths`).

    Returns:
      A dataset with, for layer 0 and so on, ``layer0_change_kind`` and ``layer0_change_curve``, the
      median over sequences of the log norm by lag; of the dimensions ``layer0_change`` and
      ``layer0_lag``.
    """
    import xarray

    tried = copies(layers, batches)
    most = max(map(len, tried))
    # The same change of different layers side by side: it takes about as long on each device.
    places = [(i, j) for j in range(most) for i, own in enumerate(tried) if j < len(own)]
    curves = dict(zip(places, median_curves([tried[i][j][1] for i, j in places]), strict=True))
    arrays, coords = {}, {}
    for i, own in enumerate(tried):
        change, lag = f"layer{i}_change", f"layer{i}_lag"
        coords[change] = [one.name for one, _ in own]
        arrays[f"{change}_kind"] = (change, [one.kind for one, _ in own])
        arrays[f"{change}_curve"] = (
            (change, lag),
            np.stack([curves[i, j] for j in range(len(own))]),
        )
    return xarray.Dataset(arrays, coords)


def judged(
    changed: "xarray.Dataset", before: "xarray.Dataset", needed_lag: int
) -> "xarray.Dataset":
    """Returns the horizons and the norms at the needed lag, before and after each change.

    Args:
      changed: ``change_kind`` and ``change_curve`` of a layer, from `measure_changes`.
      before: What `measure_layer` found.
      needed_lag: The lag that the task needs.

    Returns:
      A dataset with the dimension change, and variables kind, horizon, horizon_before, log_norm and
      log_norm_before at the needed lag, all medians over the sequences.
    """
    old, curves = median_over_runs(before.log_norm.values), changed.change_curve.values
    return changed[["change_kind"]].assign(
        change_horizon=("change", [float(flow.horizons(curve)) for curve in curves]),
        change_log_norm=("change", curves[:, needed_lag].astype(float)),
        horizon_before=float(flow.horizons(old)),
        log_norm_before=float(old[needed_lag]),
    )


def helps(log_before: float, log_after: float) -> bool:
    """Whether a change brings the norm at the needed lag nearer to 1, by a factor of 2 or more."""
    gain = abs(log_before) - abs(log_after)
    return bool(np.isfinite(log_after) and (not np.isfinite(log_before) or gain >= np.log(2)))


def result_of(log_before: float, log_after: float) -> str:
    """Returns ``repairs`` where the norm is then within 1e-3 and 1e3, ``helps``, or neither."""
    if not helps(log_before, log_after):
        return "does not help"
    return "repairs" if abs(log_after) <= np.log(1e3) else "helps"
