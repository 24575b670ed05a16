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
from gradflow.report import copies, measuring
from gradflow.report.losses import Batch, in_reading_order, output_gradients
from gradflow.report.programs import Call, compile_together
from gradflow.report.widths import shared_widths, widened

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
    gradients, widths = output_gradients(net, batches, loss), shared_widths(layers)
    wide = [widened(layer, batches[layer.name], widths[layer.name]) for layer in layers]
    given = [(*one, gradients[layer.name]) for one, layer in zip(wide, layers, strict=True)]
    inputs = [batch for _, batch in wide]
    _compile(layers, given, advice)
    found = [
        once(f"layer={layer.name}", partial(measuring.measure_layer, *one))
        for layer, one in zip(study.progress(layers, "layers"), given, strict=True)
    ]
    measure = partial(changed.measure_changes, layers, inputs)
    tried = once("changes", measure) if advice else None
    parts = []
    for number, (layer, own) in enumerate(zip(layers, found, strict=True)):
        longest = int(batches[layer.name].lengths.max())
        needed = min(needed_lag or longest, longest)
        if tried is not None:
            own = own.merge(changed.judged(layer_data(tried, f"layer{number}_"), own, needed))
        part = own.assign({"needed_lag": needed, **_facts(layer)})
        names = {str(n): f"layer{number}_{n}" for n in {*part.variables, *part.dims}}
        parts.append(part.rename(names).drop_attrs())
    unmeasured = {layer.name: "no inputs are known" for layer in net.layers if layer not in layers}
    left_out = [f"{name}: {why}" for name, why in {**net.unsupported, **unmeasured}.items()]
    return xarray.merge(parts).assign_attrs(
        num_layers=len(parts), framework=net.framework, sha256=_digest(net), left_out=left_out
    )


def layer_data(dataset: "xarray.Dataset", prefix: str) -> "xarray.Dataset":
    """Returns the variables of one layer without the prefix of their names."""
    own = dataset[[name for name in dataset.variables if str(name).startswith(prefix)]]
    names = {str(n): str(n).removeprefix(prefix) for n in {*own.variables, *own.dims}}
    return own.rename(names)


def _compile(
    layers: Sequence[Layer], given: Sequence[tuple[Layer, Batch, np.ndarray]], advice: bool
) -> None:
    """Compiles all that will run, on all cores."""
    calls: list[Call] = []
    for wide, batch, gradients in given:
        calls += measuring.calls(wide, batch, gradients)
        (x,) = in_reading_order(wide, batch, batch.inputs)
        calls.append(measuring.call_of_norms(wide.cell, wide.params, x, batch.lengths))
    if advice:
        tried = changed.copies(layers, [batch for _, batch, _ in given])
        calls += copies.calls([copy for own in tried for _, copy in own])
    compile_together(calls)


def _facts(layer: Layer) -> dict[str, str]:
    return {
        "name": layer.name,
        "cell": layer.spec,
        "sizes": f"{layer.input_size} inputs, {layer.hidden_size} units",
        "direction": layer.direction,
        "verification": layer.verification,
        "convention": layer.convention,
        "note": layer.note or "none",
    }


def _digest(net: Net) -> str:
    path = None if net.path is None else user_path(net.path)
    if path is None or not path.is_file():
        return "none"
    return hashlib.sha256(path.read_bytes()).hexdigest()
