"""The recurrent cells of Keras in weights without a configuration, by names and shapes."""

import re
from typing import NamedTuple

from gradflow.interop.gates import NUM_GATES
from gradflow.interop.keras.cells import CellOptions
from gradflow.interop.keras.config import Found
from gradflow.interop.keras.hdf5_files import Hdf5File
from gradflow.interop.keras.weights import (
    Lookup,
    Unit,
    read_unit,
    units_of_keras2,
    units_of_keras3,
)


class Shapes(NamedTuple):
    """What weights alone say.

    Attributes:
      cells: The cells with the options that their shapes have, or that are Keras's defaults.
      look_up: Gets the arrays of one of them.
      unsupported: Why a layer with a recurrent kernel is none of them, by its name.
    """

    cells: list[tuple[Found, CellOptions]]
    look_up: Lookup
    unsupported: dict[str, str]


def cells_by_shapes(
    file: Hdf5File, *, is_by_names: bool, version: str, activation: str | None
) -> Shapes:
    """Finds the recurrent cells in weights without a configuration.

    Args:
      file: The file.
      is_by_names: Whether it has the layout of Keras 2, by names of layers.
      version: The version of Keras that wrote it.
      activation: The activation of each ``SimpleRNN``, which the file does not have.

    Raises:
      ValueError: If there is a ``SimpleRNN`` and no activation is given.
    """
    units = units_of_keras2(file) if is_by_names else units_of_keras3(file)
    cells: list[tuple[Found, CellOptions]] = []
    by_name: dict[str, Unit] = {}
    unsupported: dict[str, str] = {}
    for unit in units:
        name, reverse = _name(file, unit, units, is_by_names)
        try:
            options, note = _options(file, unit, version)
        except ValueError as reason:
            unsupported[name] = str(reason)
            continue
        if options.cell == "rnn":
            options = options._replace(activation=_asked(name, activation))
        by_name[name] = unit
        steps = tuple(unit.path.split("/"))
        found = Found(name, options.cell, {}, steps, unit.owner, name, reverse, note=note)
        cells.append((found, options))
    return Shapes(cells, lambda found: read_unit(file, by_name[found.name]), unsupported)


def _asked(name: str, activation: str | None) -> str:
    if activation is None:
        raise ValueError(
            f"Expected the activation of the SimpleRNN {name!r}, which weights alone do not have. "
            "Pass activation='tanh', which is Keras's default, or the model's configuration with "
            "config."
        )
    return activation


def _options(file: Hdf5File, unit: Unit, version: str) -> tuple[CellOptions, str]:
    """The options of a cell from its shapes, and what was assumed.

    Raises:
      ValueError: If it is none of Keras's; the message is the reason.
    """
    shapes = [file.arrays[path] for path in unit.arrays]
    kernel, recurrent, bias = shapes[0], shapes[1], shapes[2] if len(shapes) > 2 else None
    if len(kernel) != 2 or len(recurrent) != 2 or kernel[1] != recurrent[1] or not recurrent[0]:
        raise ValueError(f"it is not one of Keras's LSTM, GRU and SimpleRNN; its shapes: {shapes}")
    units, (gates, rest) = recurrent[0], divmod(recurrent[1], recurrent[0])
    kinds = {1: "rnn", 3: "gru", 4: "lstm"}
    if rest or gates not in kinds:
        raise ValueError(f"it is not one of Keras's LSTM, GRU and SimpleRNN; its shapes: {shapes}")
    cell, columns = kinds[gates], recurrent[1]
    two_biases = bias == (2 * columns,)
    if cell == "gru" and bias is None:
        raise ValueError(
            "a GRU without bias does not say whether it resets before or after the product; name "
            "the model's configuration with config"
        )
    if cell == "gru" and bias == (columns,):
        cell = "gru_reset_before"
    assert gates == NUM_GATES[cell]
    options = CellOptions(cell, units, bias is not None)
    if two_biases:
        return (
            options,
            "without configuration: its shapes are those of a layer for cuDNN",
        )
    if cell == "rnn":
        return options, "without configuration: recognised by its shapes, read forwards"
    if not version.endswith("-tf") and _numbers(version) < (2, 3) and version[:1] == "2":
        options = options._replace(gate_activation="hard_sigmoid_fifth")
    return options, (
        "without configuration: recognised by its shapes; its activations are assumed to be "
        f"the defaults of Keras {version}; read forwards"
    )


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
    steps = unit.path.split("/")
    parts = []
    for end in range(1, len(steps) + 1):
        if steps[end - 1] in ("layers", "layer", "cell", "cells"):
            continue
        if steps[end - 1] in ("forward_layer", "backward_layer"):
            parts.append({"forward_layer": "forward"}.get(steps[end - 1], "reverse"))
            break
        named = (
            file.attributes("/".join(steps[:end]) + "/vars").get("name")
            if ("/".join(steps[:end]) + "/vars" in file.groups)
            else None
        )
        parts.append(str(named or steps[end - 1]))
    return ".".join(parts) or "cell", "backward_layer" in steps
