"""The graph of layers in the configuration of a Keras model: what each layer reads.

Keras 2 and Keras 3 write it differently; here both become sources of each layer.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

Config = Mapping[str, Any]

PASSING = frozenset(
    "ActivityRegularization AlphaDropout Dropout GaussianDropout GaussianNoise Identity "
    "InputLayer Masking SpatialDropout1D".split()
)
"""The layers that do not change values in inference."""

TIMELESS = frozenset(
    "Flatten GlobalAveragePooling1D GlobalMaxPooling1D Permute RepeatVector Reshape".split()
)
"""The layers whose outputs do not have the time of their inputs."""


class Stream(NamedTuple):
    """A tensor between layers.

    Attributes:
      fed_by: The names of the recurrent cells whose outputs side by side it is, or none.
      turned: Whether its time is the model's in reverse; None where that is unknown.
      has_state: Whether the layer that reads it starts from the state of another layer.
    """

    fed_by: tuple[str, ...] = ()
    turned: bool | None = False
    has_state: bool = False

    @property
    def note(self) -> str:
        """What is unknown to the layer that reads it."""
        time = "read forwards, for the layers before may have reversed the time of its inputs"
        state = "starts at zero here, but at the state of another layer in the model"
        return "; ".join([time] * (self.turned is None) + [state] * self.has_state)


Source = Stream | tuple[str, int]
"""What a layer reads: a tensor, or an output of another layer by its name and index."""


def found_in(source: Source, streams: Mapping[str, list[Stream]]) -> Stream:
    """Returns the tensor of a source, from the outputs of the layers so far."""
    if isinstance(source, Stream):
        return source
    name, index = source
    return _given(streams.get(name, []), index)


def is_built_in(entry: Config) -> bool:
    """Whether a layer is Keras's own, as opposed to code of the user."""
    module = str(entry.get("module") or "keras").partition(".")[0]
    is_lambda = "Lambda" in entry["class_name"]
    registered = str(entry.get("registered_name") or "")
    return module in ("keras", "tensorflow") and ">" not in registered and not is_lambda


def joined(streams: Sequence[Stream], *, are_fed: bool = True) -> Stream:
    """Returns the stream of tensors side by side; of another combination without are_fed."""
    turned = {stream.turned for stream in streams} or {False}
    fed_by = [stream.fed_by for stream in streams]
    whole = are_fed and len(turned) == 1 and all(fed_by)
    return Stream(
        tuple(name for names in fed_by for name in names) if whole else (),
        turned.pop() if len(turned) == 1 else None,
    )


def passed_on(kind: str, config: Config, given: Sequence[Stream]) -> Stream:
    """Returns the output of a layer that is not recurrent."""
    if kind in PASSING or (kind == "Activation" and config.get("activation") == "linear"):
        return given[0] if given else Stream()
    if kind == "Concatenate":
        return joined(given, are_fed=config.get("axis", -1) in (-1, 2))
    if kind == "Flip" and given and given[0].turned is not None:
        return given[0]._replace(turned=given[0].turned ^ (config.get("axis") in (1, -2)))
    if kind in ("Flip", "GetItem"):
        return Stream(turned=None)
    return Stream() if kind in TIMELESS else joined(given, are_fed=False)


def model_layers(
    entry: Config, inputs: Sequence[Stream]
) -> Iterator[tuple[Config, Sequence[Source]]]:
    """Yields the layers of a model in order, each with what it reads."""
    config = entry["config"]
    is_list = isinstance(config, Sequence)  # the form of Keras 2.0
    layers = config if is_list else config["layers"]
    if entry["class_name"] == "Sequential" or is_list:
        before: Source = _given(inputs, 0)
        for index, layer in enumerate(layers):
            yield layer, [before]
            name = str(layer["config"].get("name") or layer.get("name") or index)
            if layer["class_name"] != "InputLayer":
                before = name, 0
        return
    names = [name for name, _ in triples(config.get("input_layers", []))]
    for layer in layers:
        name = layer["config"].get("name")
        if layer["class_name"] == "InputLayer" and name in names:
            yield layer, [_given(inputs, names.index(name))]
        else:
            yield layer, _inbound(layer)


def _given(inputs: Sequence[Stream], index: int) -> Stream:
    return inputs[index] if index < len(inputs) else Stream()


def has_given_state(layer: Config, given: Sequence[Stream]) -> bool:
    """Whether a recurrent layer starts from the state of another layer."""
    return len(given) > 1 or "initial_state" in str(layer.get("inbound_nodes", ""))


def _inbound(layer: Config) -> Sequence[Source]:
    """What a layer of a graph reads; nothing that is known if it is called several times."""
    nodes = layer.get("inbound_nodes") or []
    if len(nodes) != 1:
        return []
    return triples(nodes[0]["args"] if "args" in nodes[0] else nodes[0])


def triples(given: Any) -> list[tuple[str, int]]:
    """Returns the tensors in a nested list by the layer's name and the index of its output."""
    if isinstance(given, Mapping):
        if given.get("class_name") == "__keras_tensor__":
            return triples(given["config"]["keras_history"])
        return [place for one in given.values() for place in triples(one)]
    if not isinstance(given, list | tuple):
        return []
    if len(given) >= 3 and isinstance(given[0], str) and isinstance(given[2], int):
        return [(given[0], given[2])]
    return [place for one in given for place in triples(one)]


def outputs_of(entry: Config, streams: Mapping[str, list[Stream]]) -> list[Stream]:
    """Returns the outputs of a model from those of its layers."""
    config = entry["config"]
    if isinstance(config, Mapping) and "output_layers" in config:
        return [found_in(place, streams) for place in triples(config["output_layers"])]
    return list(streams.values())[-1][:1] if streams else []
