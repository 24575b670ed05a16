"""The recurrent cores of Haiku among its parameters, recognised by the names of its modules."""

import re
from collections.abc import Mapping

import numpy as np

from gradflow.cell import Params
from gradflow.interop.flax.nested import CellTree, Tree, array, needed
from gradflow.interop.gates import split_gates


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
            cells[module] = CellTree(_name(module), "haiku.GRU", leaves, _gru)
        elif core == "vanilla_rnn" and last in ("linear", "linear_1"):
            both = {n: tree.get(f"{parent}/{n}", {}) for n in ("linear", "linear_1")}
            cells[parent] = CellTree(_name(parent), "haiku.VanillaRNN", both, _rnn)
        elif last == "linear" and (core == "lstm" or (is_haiku and _fits_lstm(leaves))):
            cells[parent] = CellTree(_name(parent), "haiku.LSTM", {"linear": leaves}, _lstm)
    return list(cells.values())


def _fits_lstm(leaves: Tree) -> bool:
    shape = np.shape(leaves.get("w", 0))
    return len(shape) == 2 and not shape[1] % 4 and shape[0] > shape[1] // 4


def _name(module: str) -> str:
    return ".".join(part for part in module.split("/") if part != "~")


def _lstm(tree: Tree) -> tuple[str, Params]:
    """Haiku's LSTM: one matrix for [x, h], gates i g f o, and a forget bias that the step adds."""
    W, b = needed(tree, "linear", "w").T, array(tree, "linear", "b")
    size = len(W) // 4
    params = split_gates("lstm", "igfo", W[:, :-size], W[:, W.shape[1] - size :], b)
    params["f"]["b"] = params["f"]["b"] + 1
    return "lstm", params


def _gru(tree: Tree) -> tuple[str, Params]:
    """Haiku's GRU resets before the product, and its z takes the new state where it is 1."""
    W_x, W_h = needed(tree, "w_i").T, needed(tree, "w_h").T
    params = split_gates("gru_reset_before", "zrn", W_x, W_h, array(tree, "b"))
    params["z"] = {name: -leaf for name, leaf in params["z"].items()}
    return "gru_reset_before", params


def _rnn(tree: Tree) -> tuple[str, Params]:
    W_x, W_h = needed(tree, "linear", "w").T, needed(tree, "linear_1", "w").T
    biases = array(tree, "linear", "b"), array(tree, "linear_1", "b")
    return "rnn", split_gates("rnn", "h", W_x, W_h, *biases)
