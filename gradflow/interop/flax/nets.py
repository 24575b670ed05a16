"""The recurrent layers of Flax and Haiku in memory: parameters, and modules of NNX."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
from flax import linen, nnx
from flax.core.meta import unbox

from gradflow.cell import Params
from gradflow.cells.activations import ACTIVATIONS
from gradflow.checks import shorten
from gradflow.interop.conventions import check_convention
from gradflow.interop.flax.cells import nnx_params
from gradflow.interop.flax.haiku_trees import haiku_cells
from gradflow.interop.flax.nested import CellTree, plain
from gradflow.interop.flax.runs import original_cell, run_nnx_cell, turned
from gradflow.interop.flax.trees import flax_cells
from gradflow.interop.loading import Options
from gradflow.interop.net import Layer, Net, compared
from gradflow.interop.notes import joined_notes

_CONVENTIONS = {
    "linen": "Flax Linen: a matrix (input, hidden) for each gate",
    "nnx": "Flax NNX",
    "haiku": "Haiku",
}


def from_tree(tree: Mapping[str, Any], options: Options) -> Net:
    """Returns the recurrent cells among parameters in nested dictionaries.

    These are the variables of a Linen module, or its parameters alone; parameters of Haiku; or
    the state of an NNX module as a pure dictionary. The names of layers are those in the tree.

    Raises:
      ValueError: If there is no recurrent cell, its arrays do not belong together, or the user
        names another convention.
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
    chosen = [c for c in [*cores, *cells] if c.name.startswith(options.layer or "")]
    layers = tuple(_layer(cell, options) for cell in chosen or [*cores, *cells])
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
    layer = layer_of(
        cell.name, spec_of(name, activation), params, convention, is_reverse=is_reverse, note=note
    )
    if not options.verify:
        return layer
    try:
        run = original_cell(cell, layer.hidden_size, activation)
    except ModuleNotFoundError:
        note = joined_notes(layer.note, "not verified: Haiku is not installed")
        return replace(layer, note=note)
    return compared(layer, turned(run) if is_reverse else run)


def spec_of(cell: str, activation: str = "tanh", gate_activation: str = "sigmoid") -> str:
    """Returns the spec of a cell with its activations, as `gradflow.cells.resolve` takes it."""
    given = {"activation": activation, "gate_activation": gate_activation}
    defaults = {"activation": "tanh", "gate_activation": "sigmoid"}
    options = [f"{name}={value!r}" for name, value in given.items() if value != defaults[name]]
    return f"{cell}({', '.join(options)})" if options else cell


def layer_of(
    name: str, spec: str, params: Params, convention: str, *, is_reverse: bool, note: str = ""
) -> Layer:
    """Returns a layer with the sizes that its parameters have."""
    gate = params if "W_x" in params else next(iter(params.values()))
    return Layer(
        name=name,
        spec=spec,
        input_size=gate["W_x"].shape[1],
        hidden_size=gate["W_x"].shape[0],
        params=params,
        convention=convention,
        direction="reverse" if is_reverse else "forward",
        note=note,
    )


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
        # The second direction of a Bidirectional is turned by it, whatever its own setting.
        is_reverse = "backward_rnn" in path or any(turns)
        found = _of_cell(name, node, is_reverse=is_reverse, verify=options.verify)
        if isinstance(found, Layer):
            layers.append(found)
        else:
            unsupported[name] = found
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


def _of_cell(name: str, cell: Any, *, is_reverse: bool, verify: bool) -> Layer | str:
    """The layer of an NNX cell, or why it is not supported."""
    kind = type(cell).__name__
    trees, _ = flax_cells(plain(nnx_params(cell)))
    if type(cell).__module__.partition(".")[0] != "flax" or len(trees) != 1:
        return f"its cell {kind} is not one of Flax; gradflow.interop.from_nnx makes a cell of it"
    activation = _name_of(cell.activation_fn)
    gate = _name_of(getattr(cell, "gate_fn", jax.nn.sigmoid))
    if activation is None or gate is None:
        return f"an activation of its {kind} is not one of jax.nn"
    ours, params = trees[0].converted()
    spec = spec_of(ours, activation, "sigmoid" if ours == "rnn" else gate)
    if getattr(cell, "residual", False):
        spec = f"rnn(activation={activation!r}, residual=True)"
    layer = layer_of(name, spec, params, _CONVENTIONS["nnx"], is_reverse=is_reverse)
    run = run_nnx_cell(cell)
    return compared(layer, turned(run) if is_reverse else run) if verify else layer


def _name_of(function: Any) -> str | None:
    """The name of an activation; None if it is none of gradflow's."""
    names = [n for n in ACTIVATIONS if function in (ACTIVATIONS[n], getattr(jax.nn, n, None))]
    return names[0] if names else None
