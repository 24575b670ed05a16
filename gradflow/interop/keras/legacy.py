"""Whole models in the HDF5 files of Keras 2 and 3, built by Keras 3.

Keras gets a copy of the file, with the same arrays and with a configuration that Keras 3 reads as
Keras 2 meant it.
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gradflow.interop.keras.files import Config, keras_version, weights_root
from gradflow.interop.keras.hdf5_files import Hdf5File, opened
from gradflow.interop.keras.runs import keras_function

_WRAPPED = ("layer", "backward_layer", "cell", "cells")
_NEEDLESS = ("_initializer", "_regularizer", "_constraint", "batch_input_shape")


def model_of_hdf5(keras: Any, path: Path, config: Config) -> Any:
    """Builds the model of an HDF5 file, or of a file of weights with their configuration."""
    with opened(path) as file, tempfile.TemporaryDirectory() as folder:
        if not file.names(weights_root(file), "layer_names"):  # the weights of a model of Keras 3
            model = keras.models.model_from_json(json.dumps(config))
            copy = Path(folder) / "model.weights.h5"
            copy.write_bytes(path.read_bytes())
            model.load_weights(str(copy))
            return model
        copy = Path(folder) / "model.h5"
        _write(file, _normalised(config), copy)
        model = keras.models.load_model(str(copy), compile=False, safe_mode=True)
        if keras_version(config, file).startswith("2"):
            _restore_hard_sigmoid(keras, model)
    return model


def _write(file: Hdf5File, config: Config, path: Path) -> None:
    """Writes the weights and the configuration as Keras 2 did."""
    import h5py

    root = weights_root(file)
    with h5py.File(path, "w", libver="latest") as copy:  # whose lists of names have any length
        copy.attrs["model_config"] = json.dumps(config)
        weights = copy.create_group("model_weights")
        for name in ("keras_version", "backend"):
            weights.attrs.update({name: v} if (v := file.attributes(root).get(name)) else {})
        layers = file.names(root, "layer_names")
        weights.attrs["layer_names"] = _texts(layers)
        for layer in layers:
            place = f"{root}/{layer}".removeprefix("/")
            names = file.names(place, "weight_names")
            group = weights.create_group(layer)
            group.attrs["weight_names"] = _texts(names)
            for name in names:
                group[name] = file.read(f"{place}/{name}")


def _texts(names: list[str]) -> np.ndarray:
    return np.asarray([name.encode() for name in names], "S") if names else np.zeros(0, "S1")


def _normalised(entry: Any, *, is_wrapped: bool = False) -> Any:
    """Rewrites what Keras 3 does not read in the configurations of Keras 2.

    A sequence of layers gets a layer for its input, and a layer within another one its module. What
    only training needs, such as initialisers, is left out.
    """
    if isinstance(entry, list):
        return [_normalised(one, is_wrapped=is_wrapped) for one in entry]
    if not isinstance(entry, dict):
        return entry
    entry = dict(entry)
    if entry.get("class_name") == "Sequential":
        entry["config"] = _with_input(entry["config"])
    elif is_wrapped and "class_name" in entry:
        entry = {"module": "keras.layers", "registered_name": None, **entry}
    is_input = entry.get("class_name") == "InputLayer"
    return {
        name: value if is_input else _normalised(value, is_wrapped=name in _WRAPPED)
        for name, value in entry.items()
        if not name.endswith(_NEEDLESS)
    }


def _with_input(config: Any) -> Config:
    """The configuration of a sequence of layers, whose first one may have the shape of the input.

    Before Keras 2.3, it was a list.
    """
    found: Config = (
        dict(config) if isinstance(config, dict) else {"name": "model", "layers": config}
    )
    first: Config = found["layers"][0] if found["layers"] else {"class_name": "InputLayer"}
    if first["class_name"] != "InputLayer" and "batch_input_shape" in first["config"]:
        shape = first["config"]["batch_input_shape"]
        added = {"class_name": "InputLayer", "config": {"name": "in", "batch_input_shape": shape}}
        found["layers"] = [added, *found["layers"]]
    return found


def _restore_hard_sigmoid(keras: Any, model: Any) -> None:
    """Gives every layer Keras 2's hard sigmoid; that of Keras 3 is another function."""
    for part in _parts(model):
        for name in ("activation", "recurrent_activation"):
            if getattr(part, name, None) is keras.activations.hard_sigmoid:
                setattr(part, name, keras_function(keras, "hard_sigmoid_fifth"))


def _parts(layer: Any) -> Iterator[Any]:
    """Yields all layers and cells within a layer; of a layer with a cell, the cell alone."""
    names = ("layers", "cells", "cell", "layer", "forward_layer", "backward_layer")
    inside = [part for name in names if (part := getattr(layer, name, None)) is not None]
    if not inside:
        yield layer
    for part in inside:
        for one in part if isinstance(part, list | tuple) else [part]:
            yield from _parts(one)
