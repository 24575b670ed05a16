"""Layers of nets from the cells of Keras, each compared with Keras's own."""

from collections.abc import Mapping, Sequence

from gradflow.interop.keras.cells import CellOptions, cell_options, cell_params
from gradflow.interop.keras.config import ConfigWalk, Found
from gradflow.interop.keras.runs import keras_module, original_layer
from gradflow.interop.keras.weights import CellArrays
from gradflow.interop.loading import Options
from gradflow.interop.net import Layer, compared
from gradflow.interop.notes import joined_notes

Described = Sequence[tuple[Found, CellOptions]]


def described(walk: ConfigWalk, version: str) -> tuple[Described, dict[str, str]]:
    """Returns the cells of a configuration with their options, and why others have none."""
    cells, unsupported = [], dict(walk.unsupported)
    for found in walk.found:
        try:
            options = cell_options(found.class_name, found.config, int(version.split(".")[0]))
        except (ValueError, KeyError) as reason:
            unsupported[found.name] = str(reason)
        else:
            cells.append((found, options))
    return cells, unsupported


def wanted(cells: Described, options: Options) -> Described:
    """Returns the cells whose names begin as the user says; all, if none does."""
    return [cell for cell in cells if cell[0].name.startswith(options.layer or "")] or cells


def built_layers(
    cells: Described, arrays: Mapping[str, CellArrays], options: Options
) -> tuple[Layer, ...]:
    """Returns the layers, compared with Keras's where it is installed.

    Args:
      cells: The cells.
      arrays: The arrays of each by name.
      options: What the user says.

    Raises:
      ValueError: If arrays contradict the options, or give other outputs than Keras.
    """
    names = {found.name for found, _ in cells}
    keras, why = keras_module() if options.verify else (None, "")
    layers = []
    for found, cell in cells:
        kernel, recurrent, bias = arrays[found.name]
        params, convention = cell_params(cell, kernel, recurrent, bias)
        layer = Layer(
            name=found.name,
            spec=cell.spec,
            input_size=kernel.shape[0],
            hidden_size=recurrent.shape[0],
            params=params,
            convention=convention,
            direction="reverse" if found.reverse else "forward",
            fed_by=found.fed_by if set(found.fed_by) <= names else (),
            note=joined_notes(found.note, why and f"not verified: {why}"),
        )
        if keras is not None:
            original = original_layer(keras, cell, arrays[found.name], found.reverse)
            layer = compared(layer, original)
        layers.append(layer)
    return tuple(layers)
