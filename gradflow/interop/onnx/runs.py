"""Runs ONNX models by onnxruntime: single nodes for comparison, whole models for their inputs."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from gradflow.interop.net import Capture
from gradflow.interop.onnx.constants import Constants
from gradflow.interop.onnx.graph import Place, one_line
from gradflow.interop.onnx.layers import initial_states
from gradflow.interop.verification import Run

TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}
"""The types of inputs of a model that a sample is converted to."""


def node_runner(
    place: Place, constants: Constants, model: Any, directions: int
) -> Callable[[int], Run]:
    """Returns direction -> the function of inputs (N, T, input) that the node computes.

    The node is run alone, with its own attributes and weights, in float32. Its layout is left out,
    which is the order of axes and nothing else, because onnxruntime has the default one alone.

    Raises:
      ModuleNotFoundError: If onnxruntime is not installed.
      ValueError: If onnxruntime refuses the node.
    """
    helper = import_module("onnx.helper")
    numpy_helper = import_module("onnx.numpy_helper")

    node = type(place.node)()
    node.CopyFrom(place.node)
    kept = [a for a in node.attribute if a.name not in ("layout", "output_sequence")]
    del node.attribute[:], node.output[:]
    node.attribute.extend(kept)
    node.output.append("Y")
    hidden = constants.value(place.scope, place.input(2)).shape[2]
    states, _ = initial_states(place, constants, directions, hidden)
    states = {f"state_{k}": state for k, state in states.items() if place.input(k)}
    weights = {
        f"weight_{k}": constants.value(place.scope, place.input(k)).astype(np.float32)
        for k in (1, 2, 3, 7)
        if place.input(k)
    }
    for k in range(len(node.input)):
        kept_names = {"X"} if k == 0 else {f"state_{k}", f"weight_{k}"} & {*states, *weights}
        node.input[k] = "".join(kept_names)
    graph = helper.make_graph(
        [node],
        "node",
        [helper.make_tensor_value_info(name, 1, None) for name in ("X", *states)],
        [helper.make_tensor_value_info("Y", 1, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    alone = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    session = _session(alone.SerializeToString())

    def of_direction(direction: int) -> Run:
        def run(inputs: np.ndarray) -> np.ndarray:
            x = np.ascontiguousarray(inputs.swapaxes(0, 1), np.float32)
            feeds = {
                name: np.repeat(state[:, None], x.shape[1], axis=1).astype(np.float32)
                for name, state in states.items()
            }
            (outputs,) = session.run(None, {"X": x, **feeds})
            return outputs[:, direction].swapaxes(0, 1)

        return run

    return of_direction


def _session(model: bytes, folder: Path | None = None) -> Any:
    onnxruntime = import_module("onnxruntime")

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # onnxruntime prints warnings about unused constants
    if folder is not None:
        key = "session.model_external_initializers_file_folder_path"
        options.add_session_config_entry(key, str(folder))
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes of errors are not public
        raise ValueError(f"onnxruntime refuses it: {one_line(error)}") from None


def capture_of(model: Any, folder: Path | None, inputs: Mapping[str, tuple[str, int]]) -> Capture:
    """Returns the function that runs the whole model and returns the inputs of the layers.

    Args:
      model: The model.
      folder: The folder of its file, for data in other files.
      inputs: The name of X of each layer and the layout of its node, by the name of the layer.
    """

    def capture(sample: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            session = _session(_with_outputs(model, [name for name, _ in inputs.values()]), folder)
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                "Expected the package onnxruntime to run the model, but it is not installed. "
                "Install it with: pip install 'gradflow-rnn[onnx]'",
                name="onnxruntime",
            ) from None
        feeds = _feeds(session, sample)
        wanted = list(dict.fromkeys(name for name, _ in inputs.values()))
        computed = [name for name in wanted if name not in feeds]
        try:
            results = session.run(computed, feeds) if computed else []
        except Exception as error:
            raise ValueError(
                f"Expected a sample that the model can be run on, got an error: {one_line(error)}. "
                "Give arrays of the shapes that the model takes."
            ) from None
        found = {**feeds, **dict(zip(computed, results, strict=True))}
        return {
            layer: found[name] if layout else found[name].swapaxes(0, 1)
            for layer, (name, layout) in inputs.items()
        }

    return capture


def _with_outputs(model: Any, names: Sequence[str]) -> bytes:
    """Returns the model with more outputs, those of these names."""
    helper = import_module("onnx.helper")

    known = {value.name for value in (*model.graph.output, *model.graph.input)}
    more = type(model)()
    more.CopyFrom(model)
    for name in dict.fromkeys(names):
        if name not in known:
            more.graph.output.append(helper.make_empty_tensor_value_info(name))
    return more.SerializeToString()


def _feeds(session: Any, sample: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the sample in the types of the model's inputs."""
    types = {one.name: one.type for one in session.get_inputs()}
    if set(sample) != set(types):
        raise ValueError(
            f"Expected a sample with the inputs {', '.join(types)} of the model, got "
            f"{', '.join(sample) or 'none'}. Give one array for each of these names."
        )
    return {name: np.asarray(sample[name], TYPES.get(kind)) for name, kind in types.items()}
