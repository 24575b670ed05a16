"""The recurrent cells among parameters of Flax and Haiku, recognised by the names in them."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np

from gradflow.cell import Params
from gradflow.checks import shorten
from gradflow.interop.flax.nested import Tree, array, needed, nodes, num_gates
from gradflow.interop.gates import KINDS, ORDERS, split_gates

Converted = tuple[str, Params]
"""The name of a cell of ours and its parameters."""


class CellTree(NamedTuple):
    """The parameters of a recurrent cell in a tree.

    Attributes:
      name: Its name in the model, from the names around it.
      kind: The class of the framework, such as ``linen.LSTMCell``.
      tree: Its parameters, by the framework's names.
    """

    name: str
    kind: str
    tree: Tree

    def converted(self) -> Converted:
        """Returns the cell and its parameters.

        Raises:
          ValueError: If arrays are missing, or have shapes that do not belong together.
        """
        try:
            return SPLITS[self.kind](self.tree)
        except ValueError as error:
            if str(error).startswith("Expected"):
                raise
            raise ValueError(
                f"Expected parameters of a {self.kind} whose shapes belong together at "
                f"{self.name!r}, got others ({shorten(error)}). Save the parameters again."
            ) from None


def _separate(cell: str, tree: Tree) -> Converted:
    """A cell of Flax that has a matrix (input, hidden) for each gate: ``ii``, ``hi`` and so on."""
    order = ORDERS["torch"][cell]
    names = {g: "if_" if g == "f" and "if_" in tree else f"i{g}" for g in order}
    W_x = np.concatenate([needed(tree, names[g], "kernel").T for g in order])
    W_h = np.concatenate([needed(tree, f"h{g}", "kernel").T for g in order])

    def bias(name: str) -> np.ndarray:
        found = array(tree, name, "bias")
        return np.zeros(len(W_h) // len(order)) if found is None else found

    biases = [bias(names[g]) for g in order], [bias(f"h{g}") for g in order]
    return cell, split_gates(cell, order, W_x, W_h, *map(np.concatenate, biases))


def _joined(x: str, h: str, tree: Tree) -> Converted:
    """A cell that has a matrix (input, gates * hidden) for all gates, and one for h."""
    W_x, W_h = needed(tree, x, "kernel").T, needed(tree, h, "kernel").T
    cell = KINDS[num_gates(tree, h)]
    biases = array(tree, x, "bias"), array(tree, h, "bias")
    return cell, split_gates(cell, ORDERS["torch"][cell], W_x, W_h, *biases)


def _haiku_lstm(tree: Tree) -> Converted:
    """Haiku's LSTM: one matrix for [x, h], gates i g f o, and a forget bias that the step adds."""
    W, b = needed(tree, "linear", "w").T, array(tree, "linear", "b")
    size = W.shape[1] - len(W) // 4
    params = split_gates("lstm", ORDERS["haiku"]["lstm"], W[:, :size], W[:, size:], b)
    params["f"]["b"] = params["f"]["b"] + 1
    return "lstm", params


def _haiku_gru(tree: Tree) -> Converted:
    """Haiku's GRU resets before the product, and its z takes the new state where it is 1."""
    W_x, W_h = needed(tree, "w_i").T, needed(tree, "w_h").T
    order = ORDERS["haiku"]["gru"]
    params = split_gates("gru_reset_before", order, W_x, W_h, array(tree, "b"))
    params["z"] = {name: -leaf for name, leaf in params["z"].items()}
    return "gru_reset_before", params


def _haiku_rnn(tree: Tree) -> Converted:
    W_x, W_h = needed(tree, "linear", "w").T, needed(tree, "linear_1", "w").T
    biases = array(tree, "linear", "b"), array(tree, "linear_1", "b")
    return "rnn", split_gates("rnn", "n", W_x, W_h, *biases)


SPLITS: dict[str, Callable[[Tree], Converted]] = {
    "linen.LSTMCell": partial(_separate, "lstm"),
    "linen.GRUCell": partial(_separate, "gru"),
    "linen.SimpleCell": partial(_joined, "i", "h"),
    "nnx.LSTMCell": partial(_separate, "lstm"),
    "nnx.OptimizedLSTMCell": partial(_joined, "dense_i", "dense_h"),
    "nnx.GRUCell": partial(_joined, "dense_i", "dense_h"),
    "nnx.SimpleCell": partial(_joined, "dense_i", "dense_h"),
    "haiku.LSTM": _haiku_lstm,
    "haiku.GRU": _haiku_gru,
    "haiku.VanillaRNN": _haiku_rnn,
}
"""The conversion of each class of cells; optimised cells of Linen have the names of the others."""


def flax_cells(tree: Tree) -> tuple[list[CellTree], dict[str, str]]:
    """Returns the recurrent cells of Flax in a tree, and why others are not supported."""
    cells: list[CellTree] = []
    unsupported: dict[str, str] = {}
    for path, node in nodes(tree):
        name = ".".join(path) or "cell"
        kind = _flax_kind(node)
        if kind in SPLITS:
            cells.append(CellTree(name, kind, node))
        elif kind:
            unsupported[name] = kind
    # Trees are often sorted by name, by which the backward direction comes first.
    pairs = [cell.name.replace("backward_rnn", "forward_rnn") for cell in cells]
    order = sorted(
        range(len(cells)), key=lambda k: (pairs.index(pairs[k]), cells[k].name != pairs[k])
    )
    return [cells[k] for k in order], unsupported


def _flax_kind(node: Tree) -> str:
    """The class of a cell by the names in it, or why it is not supported; empty for no cell."""
    names = {name for name, value in node.items() if isinstance(value, Mapping)}
    if {"ii", "ig", "io", "hi", "hf", "hg", "ho"} <= names:
        return "nnx.LSTMCell" if "if_" in names else "linen.LSTMCell"
    if {"ir", "iz", "in", "hr", "hz", "hn"} <= names:
        return "linen.GRUCell"
    if {"if", "in", "hf", "hn"} <= names:
        return "an MGUCell of Flax, whose f keeps the old state and acts after the product"
    if {"dense_i", "dense_h"} <= names:
        kinds = {1: "nnx.SimpleCell", 3: "nnx.GRUCell", 4: "nnx.OptimizedLSTMCell"}
        return kinds.get(num_gates(node, "dense_h"), "dense_h has the shape of no cell of Flax")
    if names == {"i", "h"} and num_gates(node, "h") == 1:
        return "linen.SimpleCell"
    if {"ih", "hh"} <= names and np.ndim(node["hh"].get("kernel", 0)) > 2:
        return "a ConvLSTMCell, whose states are images: gradflow has no cell for them"
    return ""


def haiku_cells(tree: Tree, *, is_haiku: bool) -> list[CellTree]:
    """Returns the recurrent cores of Haiku in its parameters, by the names of its modules.

    An LSTM is a ``Linear`` in a module; it is recognised where the module is called ``lstm``, or,
    with is_haiku, where the shapes of its arrays fit.
    """
    cells: dict[str, CellTree] = {}
    for module, leaves in tree.items():
        if not isinstance(leaves, Mapping):
            continue
        parent, _, last = module.rpartition("/")
        core = re.sub(r"_\d+$", "", parent.rpartition("/")[2])
        if {"w_i", "w_h"} <= set(leaves):
            cells[module] = CellTree(_haiku_name(module), "haiku.GRU", leaves)
        elif core == "vanilla_rnn" and last in ("linear", "linear_1"):
            both = {n: tree.get(f"{parent}/{n}", {}) for n in ("linear", "linear_1")}
            cells[parent] = CellTree(_haiku_name(parent), "haiku.VanillaRNN", both)
        elif last == "linear" and (core == "lstm" or (is_haiku and _fits_lstm(leaves))):
            cells[parent] = CellTree(_haiku_name(parent), "haiku.LSTM", {"linear": leaves})
    return list(cells.values())


def _fits_lstm(leaves: Tree) -> bool:
    shape = np.shape(leaves.get("w", 0))
    return len(shape) == 2 and not shape[1] % 4 and shape[0] > shape[1] // 4


def _haiku_name(module: str) -> str:
    return ".".join(part for part in module.split("/") if part != "~")
