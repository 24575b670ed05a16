"""The recurrent cells in the configuration of a Keras model, and what feeds each of them.

The configuration is only read: no class or function that it names is looked up.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gradflow.interop.keras.cells import CELLS, CellOptions, cell_options
from gradflow.interop.keras.graph import (
    Stream,
    found_in,
    has_given_state,
    is_built_in,
    joined,
    model_layers,
    outputs_of,
    passed_on,
)

Config = Mapping[str, Any]


class Found(NamedTuple):
    """A recurrent cell of a model.

    Attributes:
      name: The name of its layer, with those of the models around it.
      options: Its cell with the options.
      steps: The way to the cell from the model, as Keras 3 names its groups.
      owner: The name of the layer of the outermost model in which it is.
      label: The name of its layer in the innermost model.
      reverse: Whether it reads the model's time in reverse.
      turned: Whether the tensor that it reads has the model's time in reverse.
      fed_by: The names of the cells that it reads.
      note: What is not known about its inputs.
    """

    name: str
    options: CellOptions
    steps: tuple[str, ...]
    owner: str
    label: str
    reverse: bool
    turned: bool = False
    fed_by: tuple[str, ...] = ()
    note: str = ""


class Place(NamedTuple):
    """Where a layer is: names of the models around it, steps to it, and its outermost layer."""

    prefix: str
    steps: tuple[str, ...]
    owner: str

    def within(self, *steps: str) -> "Place":
        """Returns the place of something inside."""
        return self._replace(steps=self.steps + steps)


class ConfigWalk:
    """All recurrent cells of a model's configuration.

    Args:
      model: The configuration.
      version: Keras's major version, on which the meaning of ``hard_sigmoid`` depends.

    Attributes:
      found: The cells, in the order of the configuration.
      unsupported: Why a recurrent layer has no cell here, by its name.
      custom: Places of layers that are code of the user, by name: they may hide recurrent cells.
    """

    def __init__(self, model: Config, version: int) -> None:
        self._version = version
        self.found: list[Found] = []
        self.unsupported: dict[str, str] = {}
        self.custom: dict[str, tuple[str, ...]] = {}
        self._model(model, [], Place("", (), ""))

    def _model(self, entry: Config, inputs: Sequence[Stream], place: Place) -> list[Stream]:
        """Walks the layers of a model and returns what its outputs are."""
        streams: dict[str, list[Stream]] = {}
        counts: dict[str, int] = {}
        for layer, sources in model_layers(entry, inputs):
            steps = ("layers", unique_name(snake_case(layer["class_name"]), counts))
            name = str(layer["config"].get("name") or layer.get("name") or steps[1])
            inner = Place(place.prefix, place.steps + steps, place.owner or name)
            given = [found_in(source, streams) for source in sources]
            streams[str(layer.get("name") or name)] = self._layer(layer, name, given, inner)
        return outputs_of(entry, streams)

    def _layer(self, entry: Config, name: str, given: list[Stream], at: Place) -> list[Stream]:
        kind, config, full = entry["class_name"], entry["config"], at.prefix + name
        if not is_built_in(entry):
            self.custom[full] = at.steps
            return [Stream(turned=None)]
        first = given[0] if given else Stream()
        if has_given_state(entry, given):
            first = first._replace(has_state=True)
        if kind in CELLS or kind == "RNN":
            return [self._recurrent(entry, full, name, first, at)]
        if kind == "Bidirectional":
            return self._bidirectional(config, full, name, first, at)
        if kind == "TimeDistributed":
            inner = at.within("layer")
            self._layer(config["layer"], name, [Stream()], inner)
            return [Stream(turned=first.turned)]
        if kind in ("Sequential", "Functional", "Model"):
            return self._model(entry, given, at._replace(prefix=f"{full}."))
        if kind.startswith("ConvLSTM"):
            self.unsupported[full] = f"{kind} has images as states, for which gradflow has no cell"
        return [passed_on(kind, config, given)]

    def _recurrent(
        self, entry: Config, full: str, label: str, stream: Stream, at: Place, turn: bool = False
    ) -> Stream:
        """Notes the cells of one recurrent layer, and returns its sequence of outputs."""
        config, turned = entry["config"], bool(stream.turned)
        reverse = turned ^ bool(config.get("go_backwards")) ^ turn
        cells = _cells(entry, at.within("cell").steps)
        fed_by = stream.fed_by
        for index, (kind, cell, steps) in enumerate(cells):
            name = full if len(cells) == 1 else f"{full}.{index}"
            try:
                if kind.removesuffix("Cell") not in CELLS:
                    raise ValueError(f"its cell {kind} is not one of Keras, or has no equal here")
                options = cell_options(kind, cell, self._version)
            except (ValueError, KeyError) as reason:
                self.unsupported[name] = str(reason)
                fed_by = ()
                continue
            place = steps, at.owner, label, reverse, turned
            self.found.append(Found(name, options, *place, fed_by, stream.note))
            fed_by = (name,)
        return Stream(fed_by, reverse) if config.get("return_sequences") else Stream()

    def _bidirectional(
        self, config: Config, full: str, label: str, stream: Stream, at: Place
    ) -> list[Stream]:
        forward, backward = config["layer"], config.get("backward_layer")
        outputs = []
        for end, layer in (("forward", forward), ("reverse", backward or forward)):
            place = at.within("forward_layer" if end == "forward" else "backward_layer")
            turn = end == "reverse" and not backward
            outputs.append(self._recurrent(layer, f"{full}.{end}", label, stream, place, turn))
        if not forward["config"].get("return_sequences"):
            return [Stream(), Stream()]
        # Keras turns the second output, so that both have the time of the first.
        outputs = [one._replace(turned=outputs[0].turned) for one in outputs]
        mode = config.get("merge_mode", "concat")
        if mode is None:
            return outputs
        both = joined(outputs)
        return [both if mode == "concat" else both._replace(fed_by=())]


def _cells(entry: Config, steps: tuple[str, ...]) -> list[tuple[str, Config, tuple[str, ...]]]:
    """The class, configuration and place of each cell of a recurrent layer."""
    if entry["class_name"] != "RNN":
        return [(entry["class_name"], entry["config"], steps)]
    cell = entry["config"]["cell"]
    if cell["class_name"] != "StackedRNNCells" or not is_built_in(cell):
        return [(_known(cell), cell["config"], steps)]
    counts: dict[str, int] = {}
    return [
        (
            _known(one),
            one["config"],
            (*steps, "cells", unique_name(snake_case(one["class_name"]), counts)),
        )
        for one in cell["config"]["cells"]
    ]


def _known(cell: Config) -> str:
    """The class of a cell; one that is not Keras's own gets a name that no table has."""
    return cell["class_name"] if is_built_in(cell) else f"custom {cell['class_name']}"


def snake_case(name: str) -> str:
    """Returns the name that Keras gives to the groups of a class in its files."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def unique_name(name: str, counts: dict[str, int]) -> str:
    """Returns the name of the next group of that class: ``lstm``, ``lstm_1`` and so on."""
    counts[name] = counts.get(name, -1) + 1
    return f"{name}_{counts[name]}" if counts[name] else name
