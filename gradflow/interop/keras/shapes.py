"""The recurrent cells of Keras in weights without a configuration, by names and shapes."""

import re

from gradflow.interop.gates import keras_cell
from gradflow.interop.keras.cells import CellOptions
from gradflow.interop.keras.config import Found
from gradflow.interop.keras.hdf5_files import Hdf5File
from gradflow.interop.keras.weights import Paths, Unit, units_of_keras2, units_of_keras3


def cells_by_shapes(
    file: Hdf5File, *, is_by_names: bool, version: str, activation: str | None
) -> tuple[list[Found], dict[str, Paths], dict[str, str]]:
    """Finds the recurrent cells in weights without a configuration.

    Args:
      file: The file.
      is_by_names: Whether it has the layout of Keras 2, by names of layers.
      version: The version of Keras that wrote it.
      activation: The activation of each ``SimpleRNN``, which the file does not have.

    Returns:
      The cells with the options that their shapes have, or that are Keras's defaults; their arrays
      by name; and why a layer with a recurrent kernel is none of them, by its name.
    """
    units = units_of_keras2(file) if is_by_names else units_of_keras3(file)
    cells: list[Found] = []
    paths: dict[str, Paths] = {}
    unsupported: dict[str, str] = {}
    for unit in units:
        name, reverse = _name(file, unit, units, is_by_names)
        try:
            options, note = _options(file, unit, version)
        except ValueError as reason:
            unsupported[name] = str(reason)
            continue
        if options.cell == "rnn" and activation is None:
            raise ValueError(
                f"Expected the activation of the SimpleRNN {name!r}, which weights alone do not "
                "have. Pass activation='tanh', which is Keras's default, or the model's "
                "configuration with config."
            )
        if options.cell == "rnn":
            options = options._replace(activation=activation)
        paths[name] = unit.arrays
        cells.append(Found(name, options, (), unit.owner, name, reverse, note=note))
    return cells, paths, unsupported


def _options(file: Hdf5File, unit: Unit, version: str) -> tuple[CellOptions, str]:
    """The options of a cell from its shapes, and what was assumed."""
    shapes = [file.arrays[path] for path in unit.arrays]
    cell, has_bias = keras_cell(shapes), len(shapes) > 2
    if cell is None:
        raise ValueError(f"it is not one of Keras's LSTM, GRU and SimpleRNN; its shapes: {shapes}")
    if cell == "gru" and not has_bias:
        raise ValueError(
            "a GRU without bias does not say whether it resets before or after the product; name "
            "the model's configuration with config"
        )
    units, columns = shapes[1]
    options, note = CellOptions(cell, units, has_bias), "without configuration: "
    if has_bias and shapes[2] == (2 * columns,):
        return options, note + "its shapes are those of a layer for cuDNN"
    if cell == "rnn":
        return options, note + "recognised by its shapes, read forwards"
    if not version.endswith("-tf") and _numbers(version) < (2, 3) and version[:1] == "2":
        options = options._replace(gate_activation="hard_sigmoid_fifth")
    defaults = f"the defaults of Keras {version}"
    note += f"recognised by its shapes; its activations are assumed to be {defaults}"
    return options, note + "; read forwards"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version)[:2])


def _name(file: Hdf5File, unit: Unit, units: list[Unit], is_by_names: bool) -> tuple[str, bool]:
    """The name of a cell's layer, and whether it is the second direction of a pair."""
    if is_by_names:
        same = [one for one in units if one.owner == unit.owner]
        parts = [part for part in unit.path.split("/") if part != unit.owner]
        turned = [part.startswith(("forward_", "backward_")) for part in parts]
        reverse = any(part.startswith("backward_") for part in parts)
        if any(turned):
            parts = [*parts[: turned.index(True)], "reverse" if reverse else "forward"]
        elif len(same) == 1:
            parts = []
        return ".".join([unit.owner, *parts]), reverse
    steps, parts = unit.path.split("/"), []
    for end, step in enumerate(steps, 1):
        if step in ("layers", "layer", "cell", "cells"):
            continue
        if step in ("forward_layer", "backward_layer"):
            parts.append("forward" if step == "forward_layer" else "reverse")
            break
        named = file.attributes("/".join([*steps[:end], "vars"])).get("name")
        parts.append(str(named or step))
    return ".".join(parts) or "cell", "backward_layer" in steps
