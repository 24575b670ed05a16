"""Models and layers of Keras in memory: their configuration and their arrays."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from gradflow.interop.keras.config import Found, snake_case, unique_name
from gradflow.interop.keras.weights import CellArrays, Lookup


def as_config(keras: Any, model: Any) -> dict[str, Any]:
    """Returns the configuration of a model, or of a layer as that of a model of one layer.

    A subclass of a model has no configuration of its layers; there it is their list, from which
    nothing follows about what feeds what.
    """
    if isinstance(model, keras.Sequential) or hasattr(model, "operations"):
        return keras.saving.serialize_keras_object(model)
    layers = model.layers if isinstance(model, keras.Model) else [model]
    entries = [
        as_config(keras, layer)
        if isinstance(layer, keras.Model)
        else keras.saving.serialize_keras_object(layer)
        for layer in layers
    ]
    config = {"name": model.name, "layers": entries}
    return {"class_name": "Functional", "module": "keras", "config": config}


def root_of(keras: Any, model: Any) -> Any:
    """Returns what has the ``layers`` of a model; a single layer is the only one."""
    return model if isinstance(model, keras.Model) else SimpleNamespace(layers=[model])


def object_at(model: Any, steps: Sequence[str]) -> Any:
    """Returns the layer or cell to which the steps of a `Found` lead.

    Raises:
      ValueError: If there is none.
    """
    rest = iter(steps)
    try:
        for step in rest:
            children = getattr(model, step)
            model = _by_group(children)[next(rest)] if step in ("layers", "cells") else children
    except (AttributeError, KeyError, StopIteration):
        raise ValueError(
            f"Expected a layer {'/'.join(steps)} in the Keras model, got none. Report this model."
        ) from None
    return model


def _by_group(children: Sequence[Any]) -> dict[str, Any]:
    """Layers or cells by the names that Keras 3 gives to their groups in files."""
    counts: dict[str, int] = {}
    return {unique_name(snake_case(type(one).__name__), counts): one for one in children}


def lookup_in_memory(keras: Any, model: Any) -> Lookup:
    """Returns the arrays of a cell of a model in memory, or of a single layer."""
    root = root_of(keras, model)

    def array(variable: Any) -> np.ndarray:
        return np.asarray(keras.ops.convert_to_numpy(variable), np.float64)

    def look_up(found: Found) -> CellArrays:
        cell = object_at(root, found.steps)
        if not getattr(cell, "built", False):
            raise ValueError(
                f"Expected a Keras model with weights, but the layer {found.name!r} has none yet. "
                "Build the model: call it once on a batch."
            )
        kernel, recurrent = array(cell.kernel), array(cell.recurrent_kernel)
        return kernel, recurrent, None if cell.bias is None else array(cell.bias)

    return look_up
