"""The recurrent layers of Keras models: in memory, in ``.keras`` files and in HDF5 files."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from gradflow.checks import shorten
from gradflow.interop.archives import opened_archive
from gradflow.interop.keras.cells import CellArrays, cell_params
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
from gradflow.interop.keras.legacy import model_of_hdf5
from gradflow.interop.keras.models import arrays_in_memory, as_config, captured_inputs
from gradflow.interop.keras.runs import keras_module, original_layer
from gradflow.interop.keras.shapes import cells_by_shapes
from gradflow.interop.keras.weights import Paths, paths_by_names, paths_by_steps
from gradflow.interop.loading import Options, check_convention, wanted
from gradflow.interop.net import Layer, Net, layer_of
from gradflow.interop.verification import compared, joined_notes, noted


class _Content(NamedTuple):
    """What was read from a model: version, wanted cells, their arrays, what has no cell here."""

    version: str
    cells: Sequence[Found]
    arrays: Mapping[str, CellArrays]
    unsupported: dict[str, str]
    note: str = ""


def read_keras(path: Path, options: Options) -> Net:
    """Reads the recurrent layers of a ``.keras`` file."""
    check_convention(options, "a file of Keras", "keras")
    config = config_of_archive(path)
    with opened_archive(path) as archive:
        weights = archive.read(WEIGHTS)
    with opened(weights, str(path)) as file:
        content = _content(file, config, options)
    net = _net(content, options)

    def load_model(keras: Any) -> Any:
        return keras.models.load_model(str(path), compile=False, safe_mode=True)

    return _with_capture(path, config, net, content.cells, load_model) if options.verify else net


def read_hdf5(path: Path, options: Options) -> Net:
    """Reads the recurrent layers of an HDF5 file: a model of Keras 2, or weights of any version."""
    check_convention(options, "a file of Keras", "keras")
    config = None if options.config is None else config_at(Path(options.config))
    with opened(path) as file:
        own = file.attributes("").get("model_config")
        if config is None and own is not None:
            config = parsed_config(str(own).encode(), path)
        content = _content(file, config, options)
    net = _net(content, options)
    if config is None:
        why = (
            "the file has no configuration, without which the model cannot be run; name it with "
            "--model_config (in Python: config=...)"
        )
        return replace(net, note=joined_notes(net.note, why))
    load_model = partial(model_of_hdf5, path=path, config=config)
    return _with_capture(path, config, net, content.cells, load_model) if options.verify else net


def from_model(model: Any, options: Options) -> Net:
    """Returns the recurrent layers of a Keras model, layer or cell in memory."""
    keras = import_module("keras")

    if hasattr(model, "state_size") and not isinstance(model, keras.layers.RNN):
        model = keras.layers.RNN(model)
    version = str(keras.__version__)
    walk = walked(as_config(keras, model), version)
    custom = "it is code of the user; pass it to gradflow.load by itself if it is a model"
    unsupported = walk.unsupported | dict.fromkeys(walk.custom, custom)
    cells = wanted(walk.found, options)
    arrays = {cell.name: arrays_in_memory(keras, model, cell) for cell in cells}
    content = _Content(version, cells, arrays, unsupported)
    net = _net(content, options)
    return replace(net, capture=captured_inputs(keras, lambda: model, cells, net.layers))


def _content(file: Hdf5File, config: Config | None, options: Options) -> _Content:
    version = keras_version(config, file)
    is_by_names = bool(file.names(weights_root(file), "layer_names"))
    if version.startswith("1"):
        raise ValueError(
            f"Expected a file of Keras 2 or 3, got one of Keras {version}. Load it with Keras 2 "
            "and save it again."
        )
    note = ""
    if config is None or not has_layers(config):
        found, paths, unsupported = cells_by_shapes(
            file, is_by_names=is_by_names, version=version, activation=options.activation
        )
        cells = wanted(found, options)
        note = "the layers are in the order of their names, for the file has no other"
        note *= not is_by_names
    else:
        walk = walked(config, version)
        cells, unsupported = wanted(walk.found, options), walk.unsupported
        unsupported |= {
            name: "it is code of the user with a recurrent kernel, which only its author knows"
            for name, steps in walk.custom.items()
            if _has_cells(file, "/".join(steps), name)
        }
        if is_by_names:
            paths = paths_by_names(file, walk.found, cells)
        else:
            paths = {cell.name: paths_by_steps(file, cell.steps) for cell in cells}
    arrays = {cell.name: _read(file, paths[cell.name]) for cell in cells}
    return _Content(version, cells, arrays, unsupported, note)


def _read(file: Hdf5File, paths: Paths) -> CellArrays:
    kernel, recurrent, *bias = map(file.read, paths)
    return kernel, recurrent, bias[0] if bias else None


def _has_cells(file: Hdf5File, steps: str, name: str) -> bool:
    """Whether there is an array in a layer's group that can be a recurrent kernel."""
    inside = [p for p in file.arrays if f"/{p}".startswith((f"/{steps}/", f"/{name}/"))]
    shapes = [file.arrays[path] for path in inside]
    return any(len(s) == 2 and s[1] and s[1] in (s[0], 3 * s[0], 4 * s[0]) for s in shapes)


def _net(content: _Content, options: Options) -> Net:
    if not content.cells and not content.unsupported:
        raise ValueError(
            "Expected a Keras model with a recurrent layer (LSTM, GRU, SimpleRNN or RNN), got none "
            "in its configuration or weights. Choose another model."
        )
    keras, why = keras_module() if options.verify else (None, "")
    layers: list[Layer] = []
    for found in content.cells:
        arrays = content.arrays[found.name]
        params, convention = cell_params(found.options, arrays)
        spec, facts = found.options.spec, {"fed_by": found.fed_by, "note": found.note}
        layer = layer_of(found.name, spec, params, convention, found.reverse, **facts)
        layer = noted(layer, why and f"not verified: {why}")
        if keras is not None:
            original = original_layer(keras, found.options, arrays)
            layer = compared(layer, original, reads_forwards=True)
        layers.append(layer)
    name = f"Keras {content.version}"
    return Net(name, tuple(layers), content.unsupported, note=content.note)


def _with_capture(
    path: Path, config: Config, net: Net, cells: Sequence[Found], load_model: Callable[[Any], Any]
) -> Net:
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
            return load_model(keras)
        except Exception as error:  # Keras raises what the layers raise
            raise ValueError(
                f"Expected a model at {str(path)!r} that Keras can load, but it raised "
                f"{type(error).__name__}: {shorten(error)}. Give the inputs of a layer instead, "
                "with --layer=NAME --inputs=npy:PATH."
            ) from None

    return replace(net, capture=captured_inputs(keras, model, cells, net.layers))
