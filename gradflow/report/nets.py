"""The diagnosis of a whole net, layer by layer, as one dataset."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from gradflow import study
from gradflow.interop import Layer, Net
from gradflow.paths import user_path
from gradflow.report import advice as changed
from gradflow.report import measuring
from gradflow.report.losses import Batch, in_reading_order, output_gradients
from gradflow.report.programs import Call, compile_together

if TYPE_CHECKING:
    import xarray


def diagnose_net(
    net: Net,
    batches: Mapping[str, Batch],
    *,
    loss: str,
    needed_lag: int | None = None,
    advice: bool = True,
    once: study.Once = study.call,
) -> "xarray.Dataset":
    """Measures every layer of a net for which there are inputs.

    Args:
      net: The net.
      batches: The inputs of the layers by name.
      loss: The loss whose gradient is followed (`output_gradients`).
      needed_lag: The lag that the task needs; by default the longest sequence's.
      advice: Whether changes are tried on copies and measured.
      once: Keeps the result of each layer.

    Returns:
      A dataset in which names of variables and dimensions begin with ``layer0_`` and so on.

    Raises:
      ValueError: If there are inputs for none.
    """
    import xarray

    layers = [layer for layer in net.layers if layer.name in batches]
    if not layers:
        missing = ", ".join(net.unsupported) or "none"
        raise ValueError(
            f"Expected a recurrent layer with inputs, got none; not imported: {missing}. Give "
            "inputs of the whole model with --sample."
        )
    gradients = output_gradients(net, batches, loss)
    _compile(layers, batches, gradients, advice)
    parts = []
    for number, layer in enumerate(study.progress(layers, "layers")):
        given = batches[layer.name], gradients[layer.name]
        part = once(f"layer={layer.name}", partial(_measure, layer, *given, needed_lag, advice))
        names = {str(n): f"layer{number}_{n}" for n in {*part.variables, *part.dims}}
        parts.append(part.rename(names).drop_attrs())
    unmeasured = {layer.name: "no inputs are known" for layer in net.layers if layer not in layers}
    left_out = [f"{name}: {why}" for name, why in {**net.unsupported, **unmeasured}.items()]
    return xarray.merge(parts).assign_attrs(
        num_layers=len(parts), framework=net.framework, sha256=_digest(net), left_out=left_out
    )


def _compile(
    layers: Sequence[Layer],
    batches: Mapping[str, Batch],
    gradients: Mapping[str, np.ndarray],
    advice: bool,
) -> None:
    """Compiles all that will run, on all cores."""
    calls: list[Call] = []
    for layer in layers:
        batch = batches[layer.name]
        calls += measuring.calls(layer, batch, gradients[layer.name])
        (x,) = in_reading_order(layer, batch, batch.inputs)
        calls.append(measuring.call_of_norms(layer.cell, layer.params, x, batch.lengths))
        calls += changed.calls(layer, batch) if advice else []
    compile_together(calls)


def _measure(
    layer: Layer, batch: Batch, gradient: np.ndarray, needed_lag: int | None, advice: bool
) -> "xarray.Dataset":
    found = measuring.measure_layer(layer, batch, gradient)
    longest = int(batch.lengths.max())
    needed = min(needed_lag or longest, longest)
    if advice:
        found = found.merge(changed.measure_changes(layer, batch, found, needed))
    facts = {
        "name": layer.name,
        "cell": layer.spec,
        "sizes": f"{layer.input_size} inputs, {layer.hidden_size} units",
        "direction": layer.direction,
        "verification": layer.verification,
        "convention": layer.convention,
        "note": layer.note or "none",
    }
    return found.assign({"needed_lag": needed, **facts})


def _digest(net: Net) -> str:
    path = None if net.path is None else user_path(net.path)
    if path is None or not path.is_file():
        return "none"
    return hashlib.sha256(path.read_bytes()).hexdigest()
