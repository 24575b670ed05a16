"""The recurrent layers of Keras models: in memory, in ``.keras`` files and in HDF5 files."""

from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from gradflow.checks import shorten
from gradflow.interop.archives import opened_archive
from gradflow.interop.conventions import check_convention
from gradflow.interop.keras.captures import captured_inputs
from gradflow.interop.keras.config import Found
from gradflow.interop.keras.files import (
    WEIGHTS,
    Config,
    config_at,
    config_of_archive,
    has_layers,
    is_all_built_in,
    keras_version,
    parsed_config,
    walked,
    weights_root,
)
from gradflow.interop.keras.hdf5_files import Hdf5File, opened
from gradflow.interop.keras.layers import Described, built_layers, described, wanted
from gradflow.interop.keras.objects import as_config, lookup_in_memory
from gradflow.interop.keras.runs import keras_module
from gradflow.interop.keras.shapes import cells_by_shapes
from gradflow.interop.keras.weights import CellArrays, lookup_in_keras2, lookup_in_keras3
from gradflow.interop.loading import Options
from gradflow.interop.net import Net
from gradflow.interop.notes import joined_notes


def read_keras(path: Path, options: Options) -> Net:
    """Reads the recurrent layers of a ``.keras`` file.

    Raises:
      ValueError: If it is damaged, or its configuration and weights contradict each other, or the
        user names another convention.
    """
    check_convention(options, "a file of Keras", "keras")
    config = config_of_archive(path)
    with opened_archive(path) as archive:
        weights = archive.read(WEIGHTS)
    with opened(weights, str(path)) as file:
        content = _content(file, config, options)
    net = _net(content, options)
    return _with_capture_of_file(path, config, net, content) if options.verify else net


def read_hdf5(path: Path, options: Options) -> Net:
    """Reads the recurrent layers of an HDF5 file: a model of Keras 2, or weights of Keras 2 or 3.

    Raises:
      ValueError: If it is damaged, or its configuration and weights contradict each other, or
        something has to be known that weights alone do not say, or the user names another
        convention.
      OSError: If there is no configuration where the options name one.
    """
    check_convention(options, "a file of Keras", "keras")
    named = None if options.config is None else config_at(Path(options.config))
    with opened(path) as file:
        own = file.attributes("").get("model_config")
        config = named or (parsed_config(str(own).encode(), path) if own is not None else None)
        content = _content(file, config, options)
    return _net(content, options)


class _Content(NamedTuple):
    """What was read from a file: version, cells with their arrays, and what has no cell here."""

    version: str
    cells: Described
    arrays: dict[str, CellArrays]
    unsupported: dict[str, str]
    note: str = ""


def _content(file: Hdf5File, config: Config | None, options: Options) -> _Content:
    version = keras_version(config, file)
    is_by_names = bool(file.names(weights_root(file), "layer_names"))
    if version.startswith("1"):
        raise ValueError(
            f"Expected a file of Keras 2 or 3, got one of Keras {version}. Load it with Keras 2 "
            "and save it again."
        )
    if config is None or not has_layers(config):
        cells, look_up, unsupported = cells_by_shapes(
            file, is_by_names=is_by_names, version=version, activation=options.activation
        )
    else:
        walk = walked(config)
        cells, unsupported = described(walk, version)
        unsupported |= {
            name: "it is code of the user with a recurrent kernel, which only its author knows"
            for name, steps in walk.custom.items()
            if _has_cells(file, "/".join(steps), name)
        }
        look_up = lookup_in_keras2(file, walk.found) if is_by_names else lookup_in_keras3(file)
    is_sorted = not is_by_names and (config is None or not has_layers(config))
    note = "the layers are in the order of their names, for the file has no other" * is_sorted
    cells = wanted(cells, options)
    return _Content(version, cells, {c.name: look_up(c) for c, _ in cells}, unsupported, note)


def _net(content: _Content, options: Options) -> Net:
    if not content.cells and not content.unsupported:
        raise ValueError(
            "Expected a Keras model with a recurrent layer (LSTM, GRU, SimpleRNN or RNN), got none "
            "in its configuration or weights. Choose another model."
        )
    layers = built_layers(content.cells, content.arrays, options)
    return Net(f"Keras {content.version}", layers, content.unsupported, note=content.note)


def _has_cells(file: Hdf5File, steps: str, name: str) -> bool:
    """Whether there is an array in a layer's group that can be a recurrent kernel."""
    inside = [p for p in file.arrays if f"/{p}".startswith((f"/{steps}/", f"/{name}/"))]
    shapes = [file.arrays[path] for path in inside]
    return any(len(s) == 2 and s[1] and s[1] in (s[0], 3 * s[0], 4 * s[0]) for s in shapes)


def _with_capture_of_file(path: Path, config: Config, net: Net, content: _Content) -> Net:
    """Adds what runs the model of a file, if it names nothing but Keras's own classes."""
    keras, why = keras_module()
    if keras is None:
        return replace(net, note=joined_notes(net.note, f"the model cannot be run: {why}"))
    if not has_layers(config) or not is_all_built_in(config):
        why = (
            "the model is not run, for it names code of the user; to capture inputs, load it with "
            "Keras and pass it to gradflow.load"
        )
        return replace(net, note=joined_notes(net.note, why))

    @cache
    def model() -> Any:
        try:
            return keras.models.load_model(str(path), compile=False, safe_mode=True)
        except Exception as error:  # Keras raises what the layers raise
            raise ValueError(
                f"Expected a model at {str(path)!r} that Keras can load, but it raised "
                f"{type(error).__name__}: {shorten(error)}. Pass the inputs of the layers instead."
            ) from None

    return replace(net, capture=captured_inputs(keras, model, _places(content), net.layers))


def from_model(model: Any, options: Options) -> Net:
    """Returns the recurrent layers of a Keras model, layer or cell in memory.

    Raises:
      ValueError: If it has none, or is not built yet.
    """
    keras = import_module("keras")

    if hasattr(model, "state_size") and not isinstance(model, keras.layers.RNN):
        model = keras.layers.RNN(model)
    walk = walked(as_config(keras, model))
    cells, unsupported = described(walk, str(keras.__version__))
    unsupported |= {
        name: "it is code of the user; pass it to gradflow.load by itself if it is a model"
        for name in walk.custom
    }
    cells, look_up = wanted(cells, options), lookup_in_memory(keras, model)
    arrays = {found.name: look_up(found) for found, _ in cells}
    content = _Content(str(keras.__version__), cells, arrays, unsupported)
    net = _net(content, options)
    capture = captured_inputs(keras, lambda: model, _places(content), net.layers)
    return replace(net, capture=capture)


def _places(content: _Content) -> list[Found]:
    return [found for found, _ in content.cells]
