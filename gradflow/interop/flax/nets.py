"""The recurrent layers of Flax and Haiku in memory: parameters, and modules of NNX."""

from collections.abc import Mapping
from typing import Any

import jax
from flax import linen, nnx
from flax.core.meta import unbox

from gradflow.cells.activations import ACTIVATIONS
from gradflow.checks import shorten
from gradflow.interop.flax.cells import nnx_params
from gradflow.interop.flax.nested import plain
from gradflow.interop.flax.runs import original_cell, run_nnx_cell
from gradflow.interop.flax.trees import CellTree, flax_cells, haiku_cells
from gradflow.interop.gates import spec_of
from gradflow.interop.loading import Options, check_convention, wanted
from gradflow.interop.net import Layer, Net, layer_of
from gradflow.interop.verification import compared, noted

_CONVENTIONS = {
    "linen": "Flax Linen: a matrix (input, hidden) for each gate",
    "nnx": "Flax NNX",
    "haiku": "Haiku",
}


def from_tree(tree: Mapping[str, Any], options: Options) -> Net:
    """Returns the recurrent cells among parameters in nested dictionaries.

    These are the variables of a Linen module, or its parameters alone; parameters of Haiku; or
    the state of an NNX module as a pure dictionary. The names of layers are those in the tree.
    """
    check_convention(options, "parameters in nested dictionaries", "flax", "haiku")
    given = plain(tree)
    cores = haiku_cells(given, is_haiku=options.convention == "haiku")
    cells, unsupported = flax_cells(given)
    if not cells and not cores and not unsupported:
        names = ", ".join(map(str, given)) or "nothing"
        raise ValueError(
            f"Expected parameters of Flax or Haiku with a recurrent cell, got {shorten(names)}. "
            "Pass the whole variables of the model, or convention='haiku' for cores with names of "
            "their own."
        )
    layers = tuple(_layer(cell, options) for cell in wanted([*cores, *cells], options))
    return Net("Haiku" if cores else "Flax", layers, unsupported)


def _layer(cell: CellTree, options: Options) -> Layer:
    name, params = cell.converted()
    activation, note = "tanh", ""
    if cell.kind == "haiku.VanillaRNN":
        activation = "relu"
    elif name == "rnn":
        activation = options.activation or "tanh"
        note = "" if options.activation else "assumes tanh, Flax's default, without a residual"
    is_reverse = any(part.startswith("backward") for part in cell.name.split("."))
    convention = _CONVENTIONS[cell.kind.partition(".")[0]]
    spec = spec_of(name, activation=activation)
    layer = layer_of(cell.name, spec, params, convention, is_reverse, note=note)
    if not options.verify:
        return layer
    try:
        run = original_cell(cell, layer.hidden_size, activation)
    except ModuleNotFoundError:
        return noted(layer, "not verified: Haiku is not installed")
    return compared(layer, run, reads_forwards=True)


def from_flax(model: Any, options: Options) -> Net:
    """Returns the recurrent layers of an NNX module, of its state, or of variables of Linen.

    The layers of a module have its own activations and directions, and are compared with the
    module's cells as they are.

    Raises:
      ValueError: If it is a Linen module, which has no parameters, or has no recurrent cell.
    """
    if isinstance(model, nnx.State):
        return from_tree(nnx.to_pure_dict(model), options)
    if isinstance(model, nnx.Module):
        return _from_module(model, options)
    if not isinstance(model, linen.Module):
        model = getattr(model, "params", model)  # a TrainState has them
        if isinstance(model, Mapping):
            return from_tree(unbox(model), options)
    raise ValueError(
        f"Expected variables of Flax Linen, got {type(model).__name__}, which has no parameters. "
        "Pass what module.init returned, or the trained variables."
    )


def _from_module(module: nnx.Module, options: Options) -> Net:
    nodes = [(path, node) for path, node in nnx.iter_graph(module)]
    is_reversed = {path for path, node in nodes if isinstance(node, nnx.RNN) and node.reverse}
    layers: list[Layer] = []
    unsupported: dict[str, str] = {}
    for path, node in sorted(nodes, key=lambda item: _order(item[0])):
        name = ".".join(map(str, path)) or "cell"
        if not isinstance(node, nnx.RNNCellBase) or not name.startswith(options.layer or ""):
            continue
        turns = [path[:end] in is_reversed for end in range(len(path))]
        try:
            # The second direction of a Bidirectional is turned by it, whatever its own setting.
            layer = _of_cell(name, node, is_reverse="backward_rnn" in path or any(turns))
        except _UnsupportedError as reason:
            unsupported[name] = str(reason)
        else:
            run = run_nnx_cell(node)
            layers.append(compared(layer, run, reads_forwards=True) if options.verify else layer)
    if not layers and not unsupported:
        raise ValueError(
            f"Expected an NNX module with a recurrent cell, got none in {type(module).__name__}. "
            "Pass the module that has them, without layer."
        )
    return Net("Flax NNX", tuple(layers), unsupported)


def _order(path: tuple[Any, ...]) -> list[tuple[int, str]]:
    """A key that sorts lists by their indices, and the forward direction before the other."""
    names = [str(part).replace("backward_rnn", "forward_rnn_2") for part in path]
    return [(int(name), "") if name.isdigit() else (-1, name) for name in names]


class _UnsupportedError(Exception):
    """Why a cell has no equal here."""


def _of_cell(name: str, cell: Any, *, is_reverse: bool) -> Layer:
    kind = type(cell).__name__
    trees, _ = flax_cells(plain(nnx_params(cell)))
    if type(cell).__module__.partition(".")[0] != "flax" or len(trees) != 1:
        why = f"its cell {kind} is not one of Flax; gradflow.interop.from_nnx makes a cell of it"
        raise _UnsupportedError(why)
    ours, params = trees[0].converted()
    options: dict[str, Any] = {"activation": _name_of(cell.activation_fn)}
    if ours == "rnn":
        options["residual"] = getattr(cell, "residual", False)
    else:
        options["gate_activation"] = _name_of(cell.gate_fn)
    if None in options.values():
        raise _UnsupportedError(f"an activation of its {kind} is not one of jax.nn")
    return layer_of(name, spec_of(ours, **options), params, _CONVENTIONS["nnx"], is_reverse)


def _name_of(function: Any) -> str | None:
    """The name of an activation; None if it is none of gradflow's."""
    names = [n for n in ACTIVATIONS if function in (ACTIVATIONS[n], getattr(jax.nn, n, None))]
    return names[0] if names else None
