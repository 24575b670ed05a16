"""The arrays of each recurrent cell in the files of Keras 2 and Keras 3."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from gradflow.interop.keras.config import Found
from gradflow.interop.keras.hdf5_files import Hdf5File

Paths = tuple[str, ...]
"""The paths of kernel, recurrent kernel and, if a cell has one, bias."""


class Unit(NamedTuple):
    """A recurrent cell in a file, by its arrays.

    Attributes:
      owner: The name of the outermost layer in which it is.
      path: The names of layers and cells around the arrays.
      arrays: The paths of its arrays.
    """

    owner: str
    path: str
    arrays: Paths


def units_of_keras3(file: Hdf5File) -> list[Unit]:
    """Finds the recurrent cells in a file of Keras 3, by the names of its groups.

    The arrays of a layer are ``0``, ``1`` and so on in its group ``vars``, and the recurrent
    layers keep theirs in a group ``cell``.
    """
    units = []
    for group in sorted(file.groups, key=_natural):  # HDF5 sorts lstm_10 before lstm_2
        path = group.removesuffix("/vars")
        parts = path.split("/")
        is_cell = parts[-1] == "cell" or parts[-2:-1] == ["cells"] or parts[-1].endswith("_cell")
        arrays = tuple(f"{group}/{k}" for k in range(3) if f"{group}/{k}" in file.arrays)
        if path != group and is_cell and len(arrays) > 1:
            units.append(Unit(parts[0], path, arrays))
    return units


def paths_by_steps(file: Hdf5File, steps: Sequence[str]) -> Paths:
    """Returns the arrays of a cell by the steps to it, in a file of Keras 3."""
    place = "/".join(steps)
    old = re.sub(r"(^|/)layers/", r"\1_layer_checkpoint_dependencies/", place)
    if f"{old}/vars/0" in file.arrays:  # so Keras 2.12 named the groups
        place = old
    kernel, recurrent, bias = (f"{place}/vars/{k}" for k in range(3))
    return (kernel, recurrent, bias) if bias in file.arrays else (kernel, recurrent)


def units_of_keras2(file: Hdf5File) -> list[Unit]:
    """Finds the recurrent cells in a file of Keras 2, by the names of its arrays.

    Each layer's group has its arrays' names in their order; those of a cell follow each other.
    """
    root = "model_weights" if "model_weights" in file.groups else ""
    units = []
    for owner in file.names(root, "layer_names"):
        place = f"{root}/{owner}".lstrip("/")
        if place not in file.groups:
            raise ValueError(
                f"Expected the weights of the layer {owner!r} in the file, but it has none. The "
                "file is incomplete: save the model again."
            )
        names = file.names(place, "weight_names")
        for first, second, third in zip(names, names[1:], [*names[2:], ""], strict=False):
            if _leaf(first) == "kernel" and _leaf(second) == "recurrent_kernel":
                chosen = [first, second] + [third] * (_leaf(third) == "bias")
                arrays = tuple(f"{place}/{name}" for name in chosen)
                units.append(Unit(owner, first.rpartition("/")[0], arrays))
    return units


def paths_by_names(
    file: Hdf5File, cells: Sequence[Found], chosen: Sequence[Found]
) -> dict[str, Paths]:
    """Returns the arrays of the chosen cells by the names of their layers, in a file of Keras 2."""
    units = units_of_keras2(file)
    matched: dict[str, Paths] = {}
    by_owner = {owner: [u for u in units if u.owner == owner] for owner in _owners(units)}
    wanted = {owner: [c for c in cells if c.owner == owner] for owner in _owners(cells)}
    if not set(wanted) <= set(by_owner) and len(wanted) == len(by_owner):
        # The names of the layers differ where a model was built twice; Keras goes by order as well.
        by_owner = dict(zip(wanted, by_owner.values(), strict=True))
    for owner, its_cells in wanted.items():
        matched |= _matched(its_cells, by_owner.get(owner, []))
    if missing := [cell.name for cell in chosen if cell.name not in matched]:
        raise ValueError(
            f"Expected the weights of the recurrent layer {missing[0]!r} in the file, got those of "
            f"{', '.join(unit.path for unit in units) or 'none'}. Name the configuration of these "
            "weights with config."
        )
    return matched


def _matched(cells: Sequence[Found], units: Sequence[Unit]) -> dict[str, Paths]:
    """The arrays of each cell within one layer: by name where the names fit, else by order."""
    matched: dict[str, Paths] = {}
    for label in {cell.label for cell in cells}:
        its_cells = [cell for cell in cells if cell.label == label]
        its_units = [unit for unit in units if label in unit.path.split("/")]
        if len(its_cells) == len(its_units):
            matched |= {c.name: u.arrays for c, u in zip(its_cells, its_units, strict=True)}
    if len(matched) < len(cells) == len(units):
        matched = {cell.name: unit.arrays for cell, unit in zip(cells, units, strict=True)}
    return matched


def _owners(places: Sequence[Unit] | Sequence[Found]) -> list[str]:
    return list(dict.fromkeys(place.owner for place in places))


def _leaf(name: str) -> str:
    """The name of an array without its layers and the number that makes it unique."""
    return re.sub(r"(_\d+)?(:\d+)?$", "", name.rpartition("/")[2])


def _natural(path: str) -> list[tuple[str, int]]:
    """A key that sorts by numbers, and the forward direction before the other."""
    path = path.replace("backward_layer", "forward_layer_2")
    return [(text, int(n or 0)) for text, n in re.findall(r"(\D*)(\d*)", path)]
