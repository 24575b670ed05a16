"""Reads the recurrent layers of ONNX models: nodes RNN, LSTM and GRU, wherever they are.

Names mean nothing in ONNX: the weights of a node are followed through its graph and the graphs
around it to constants. A model whose cell is written out in products has no such node.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path
from typing import Any

from gradflow.interop.archives import undamaged
from gradflow.interop.loading import Options
from gradflow.interop.net import Layer, Net
from gradflow.interop.onnx.constants import Constants
from gradflow.interop.onnx.feeding import Feeding
from gradflow.interop.onnx.graph import Place, Scope, called_in, one_line, recurrent_places
from gradflow.interop.onnx.layers import layers_of
from gradflow.interop.onnx.runs import capture_of, node_runner
from gradflow.interop.verification import compared, describe_nonfinite, noted

INSIDE = "its inputs cannot be captured: it is in a branch, a loop or a scan of the model"
"""The note of a layer that is not in the main graph."""


def read_onnx(path: Path, options: Options) -> Net:
    """Reads the recurrent layers of an ONNX file, and other files of it in its folder alone."""
    onnx = import_module("onnx")

    with undamaged(f"an ONNX model at {str(path)!r}", "Copy or export it again."):
        model = onnx.load_model(str(path), format="protobuf", load_external_data=False)
        onnx.checker.check_model(str(path))
        return _read(model, path.parent, options)


def from_graph(model: Any, options: Options) -> Net:
    """Reads the recurrent layers of an ONNX model in memory."""
    onnx = import_module("onnx")

    with undamaged("a valid ONNX model", "Check how it was made."):
        onnx.checker.check_model(model)
        return _read(model, None, options)


def _read(model: Any, folder: Path | None, options: Options) -> Net:
    model = _without_functions(model)
    constants, root = Constants(model, folder), Scope(model.graph)
    places = list(recurrent_places(root, Counter()))
    if not places:
        raise _no_recurrent_node(root)
    layers, unsupported = _layers(places, constants)
    feeding = Feeding(
        constants,
        [(place, tuple(one.name for one in of), of[0].hidden_size) for place, of in layers],
    )
    found, captured = [], {}
    for place, of in layers:
        of = [replace(layer, fed_by=feeding.of(place)) for layer in of]
        if options.verify:
            of = _verified(place, of, constants, model)
        if place.scope is root:
            layout = place.options.get("layout", 0)
            captured |= {layer.name: (place.input(0), layout) for layer in of}
        else:
            of = [noted(layer, INSIDE) for layer in of]
        found += of
    capture = capture_of(model, folder, captured) if captured else None
    return Net("ONNX", tuple(found), unsupported, capture)


def _layers(
    places: Sequence[Place], constants: Constants
) -> tuple[list[tuple[Place, list[Layer]]], dict[str, str]]:
    """Returns the layers of each node, and the reasons of the nodes that are not imported."""
    layers, unsupported = [], {}
    for place in places:
        try:
            layers.append((place, layers_of(place, constants)))
        except (ValueError, TypeError, RecursionError) as error:
            unsupported[place.name] = one_line(error)
    if not layers:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in unsupported.items())
        raise ValueError(
            f"Expected a recurrent node that can be imported, got {reasons}. Export the model with "
            "constant weights and with activations that a cell has."
        )
    return layers, unsupported


def _verified(
    place: Place, layers: Sequence[Layer], constants: Constants, model: Any
) -> list[Layer]:
    """Returns the layers, compared with what onnxruntime computes."""
    if any(describe_nonfinite(layer.params) for layer in layers):
        # Runtimes disagree about NaN in activations, and the layer is imported nevertheless.
        return [noted(one, "not verified: its weights are not finite") for one in layers]
    try:
        run = node_runner(place, constants, model, len(layers))
    except ModuleNotFoundError:
        return [noted(one, "not verified: onnxruntime is not installed") for one in layers]
    except ValueError as error:
        return [noted(one, f"not verified: {error}") for one in layers]
    return [compared(layer, run(index)) for index, layer in enumerate(layers)]


def _without_functions(model: Any) -> Any:
    """Returns the model with the nodes of its local functions in the place of their calls."""
    inliner = import_module("onnx.inliner")

    if not model.functions:
        return model
    names = {(one.domain, one.name) for one in model.functions}
    calls = {(one.domain, one.name): called_in(one.node) & names for one in model.functions}
    try:
        list(TopologicalSorter(calls).static_order())
        return inliner.inline_local_functions(model)
    except Exception as error:  # of graphlib for a circle, and of onnx
        raise ValueError(
            f"Expected local functions that can be expanded, got an error: {one_line(error)}. "
            "Export the model without functions."
        ) from None


def _no_recurrent_node(root: Scope) -> ValueError:
    kinds = Counter(node.op_type for scope in root.scopes() for node in scope.graph.node)
    products = kinds["Gemm"] + kinds["MatMul"]
    gates = kinds["Sigmoid"] + kinds["Tanh"]
    if products and gates:
        found = (
            f"{products} Gemm or MatMul and {gates} Sigmoid or Tanh: if the model is recurrent, "
            "its cell is written out in them"
        )
    else:
        common = ", ".join(name for name, _ in kinds.most_common(5))
        found = f"{sum(kinds.values())} nodes, such as {common or 'none'}"
    return ValueError(
        f"Expected a node RNN, LSTM or GRU in the ONNX graph, got {found}. Load the state_dict or "
        "the safetensors file of the model, or export it so that its LSTM is kept as a node: "
        "torch.onnx.export(..., dynamo=False) does that for nn.LSTM."
    )
