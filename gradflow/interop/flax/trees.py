"""The recurrent cells of Flax among parameters, recognised by the names that Flax gives them."""

from collections.abc import Mapping

import numpy as np

from gradflow.cell import Params
from gradflow.interop.flax.nested import CellTree, Split, Tree, array, needed, nodes, num_gates
from gradflow.interop.gates import split_gates


def _separate(cell: str, order: str) -> Split:
    """A cell of Flax that has a matrix (input, hidden) for each gate: ``ii``, ``hi`` and so on."""

    def split(tree: Tree) -> tuple[str, Params]:
        names = {g: "if_" if g == "f" and "if_" in tree else f"i{g}" for g in order}
        W_x = np.concatenate([needed(tree, names[g], "kernel").T for g in order])
        W_h = np.concatenate([needed(tree, f"h{g}", "kernel").T for g in order])
        size = len(W_h) // len(order)

        def bias(name: str) -> np.ndarray:
            found = array(tree, name, "bias")
            return np.zeros(size) if found is None else found

        b_x = np.concatenate([bias(names[g]) for g in order])
        b_h = np.concatenate([bias(f"h{g}") for g in order])
        return cell, split_gates(cell, order, W_x, W_h, b_x, b_h)

    return split


def _joined(x: str, h: str) -> Split:
    """A cell that has a matrix (input, gates * hidden) for all gates, and one for h."""

    def split(tree: Tree) -> tuple[str, Params]:
        W_x, W_h = needed(tree, x, "kernel").T, needed(tree, h, "kernel").T
        cell = {1: "rnn", 3: "gru", 4: "lstm"}[num_gates(tree, h)]
        order = {"rnn": "h", "gru": "rzn", "lstm": "ifgo"}[cell]
        biases = array(tree, x, "bias"), array(tree, h, "bias")
        return cell, split_gates(cell, order, W_x, W_h, *biases)

    return split


SPLITS: dict[str, Split] = {
    "linen.LSTMCell": _separate("lstm", "ifgo"),
    "linen.GRUCell": _separate("gru", "rzn"),
    "linen.SimpleCell": _joined("i", "h"),
    "nnx.LSTMCell": _separate("lstm", "ifgo"),
    "nnx.OptimizedLSTMCell": _joined("dense_i", "dense_h"),
    "nnx.GRUCell": _joined("dense_i", "dense_h"),
    "nnx.SimpleCell": _joined("dense_i", "dense_h"),
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
            cells.append(CellTree(name, kind, node, SPLITS[kind]))
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
