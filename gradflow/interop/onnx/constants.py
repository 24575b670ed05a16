"""The constants of an ONNX model, followed through its graphs."""

import math
from importlib import import_module
from pathlib import Path

import numpy as np

from gradflow.interop.onnx.graph import (
    ModelProto,
    NodeProto,
    Scope,
    TensorProto,
    attributes,
    one_line,
)
from gradflow.paths import check_inside

FOLDED = (
    "Cast Concat DequantizeLinear Flatten Identity Neg Reshape Slice Split Squeeze Transpose "
    "Unsqueeze"
).split()
"""Operators that are computed on constants. Their results are no larger than a few inputs."""


class Constants:
    """Computes the constants of a model.

    Args:
      model: The model.
      folder: The folder of its file, for data in other files; None for a model in memory.
    """

    def __init__(self, model: ModelProto, folder: Path | None) -> None:
        self._opsets = list(model.opset_import)
        self._folder = folder
        self._known: dict[tuple[Scope, str], np.ndarray] = {}
        # A small file can describe huge arrays, by concatenating one array over and over.
        self._room = 2**20 + 16 * (model.ByteSize() + self._external_size(model))

    def _external_size(self, model: ModelProto) -> int:
        """Returns the size of the other files with data, which have to lie in the folder."""
        if self._folder is None:
            return 0
        paths = set()
        for scope in Scope(model.graph).scopes():
            inline = [a.t for node in scope.graph.node for a in node.attribute if a.HasField("t")]
            for tensor in [*scope.graph.initializer, *inline]:
                for entry in tensor.external_data:
                    if entry.key == "location":
                        paths.add(check_inside(self._folder / entry.value, self._folder))
        return sum(path.stat().st_size for path in paths)

    def value(self, scope: Scope, name: str) -> np.ndarray:
        """Returns the constant of this name.

        Raises:
          ValueError: If it depends on the inputs of the model, or cannot be computed.
        """
        place, made = scope.find(name)
        key = (place, name)
        if key not in self._known:
            self._known[key] = self._made(place, made, name)
        return self._known[key]

    def _made(self, scope: Scope, made: NodeProto | TensorProto | None, name: str) -> np.ndarray:
        if made is None:
            raise ValueError(f"{name!r} is an input of the graph, not a constant")
        try:
            value = self._tensor(made) if hasattr(made, "dims") else self._node(scope, made, name)
        except (ValueError, RecursionError):
            raise
        except Exception as error:  # of onnx, which raises many kinds for damaged tensors
            raise ValueError(f"{name!r} cannot be computed: {one_line(error)}") from None
        self._room -= value.nbytes
        if self._room < 0 or value.dtype.kind not in "biufV":
            raise ValueError(f"{name!r} is too large for its file, or is not of numbers")
        return value

    def _tensor(self, tensor: TensorProto) -> np.ndarray:
        external_data_helper = import_module("onnx.external_data_helper")
        numpy_helper = import_module("onnx.numpy_helper")

        if tensor.external_data:
            if self._folder is None:
                raise ValueError("its data is in another file: give the path of the model")
            copy = type(tensor)()
            copy.CopyFrom(tensor)
            tensor = copy
            external_data_helper.load_external_data_for_tensor(tensor, str(self._folder))
        return numpy_helper.to_array(tensor)

    def _node(self, scope: Scope, node: NodeProto, name: str) -> np.ndarray:
        if node.op_type == "Constant":
            (attribute,) = node.attribute
            if attribute.HasField("t"):
                return self._tensor(attribute.t)
            return np.asarray(attributes(node)[attribute.name])
        if node.op_type not in FOLDED or node.domain not in ("", "ai.onnx"):
            raise ValueError(f"{name!r} is computed by {node.op_type} when the model runs")
        feeds = {one: self.value(scope, one) for one in node.input if one}
        if sum(value.nbytes for value in feeds.values()) > self._room:
            raise ValueError(f"{name!r} is too large for its file")
        return self._evaluate(node, feeds, name)

    def _evaluate(self, node: NodeProto, feeds: dict[str, np.ndarray], name: str) -> np.ndarray:
        helper = import_module("onnx.helper")
        reference = import_module("onnx.reference")

        graph = helper.make_graph(
            [node],
            "constant",
            [helper.make_empty_tensor_value_info(one) for one in feeds],
            [helper.make_empty_tensor_value_info(name)],
        )
        model = helper.make_model(graph, opset_imports=self._opsets)
        (result,) = reference.ReferenceEvaluator(model).run(None, feeds)
        return np.asarray(result)

    def initial(self, scope: Scope, name: str) -> np.ndarray:
        """Returns a constant that broadcasts to an initial state.

        Models make the state for the batch at hand: then what is expanded is the constant.

        Raises:
          ValueError: If there is none.
        """
        place, made = scope.find(name)
        kind = getattr(made, "op_type", None)
        if kind == "Expand":
            return self.initial(place, made.input[0])
        if kind == "ConstantOfShape":
            value = attributes(made).get("value")
            return np.zeros(1) if value is None else self._tensor(value)
        if kind in ("Slice", "Identity", "Cast"):
            try:
                return self.value(scope, name)
            except ValueError:
                inner = self.initial(place, made.input[0])
                if math.prod(inner.shape) == 1:  # each part of it is the same number
                    return inner
                raise
        return self.value(scope, name)
