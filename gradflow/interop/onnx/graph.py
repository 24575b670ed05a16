"""The graphs of an ONNX model, one in another, and the recurrent nodes in them."""

from collections import Counter
from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Any, NamedTuple, Optional, TypeAlias

from gradflow.checks import shorten

# The classes of onnx, which is imported only when a model of it is read.
ModelProto: TypeAlias = Any
GraphProto: TypeAlias = Any
NodeProto: TypeAlias = Any
TensorProto: TypeAlias = Any

RECURRENT = ("RNN", "LSTM", "GRU")
"""The operators that are imported."""


def one_line(error: BaseException) -> str:
    """Returns the message of an error of another library on one line, shortened."""
    return shorten(error) or type(error).__name__


def attributes(node: NodeProto) -> dict[str, Any]:
    """Returns the attributes of a node by name, text as str."""
    helper = import_module("onnx.helper")

    found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {
        name: value.decode(errors="replace") if isinstance(value, bytes) else value
        for name, value in found.items()
    }


def called_in(nodes: Iterable[NodeProto]) -> set[tuple[str, str]]:
    """Returns domain and operator of nodes and of all nodes in their graphs."""
    found = set()
    for node in nodes:
        found.add((node.domain, node.op_type))
        for attribute in node.attribute:
            found |= called_in(attribute.g.node)
    return found


class Scope:
    """A graph and the graphs around it, whose names are visible in it."""

    def __init__(self, graph: GraphProto, outer: Optional["Scope"] = None, path: str = "") -> None:
        self.graph = graph
        self.outer = outer
        self.path = path
        self._inputs = {value.name for value in graph.input}
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._nodes = {name: node for node in graph.node for name in node.output if name}

    def find(self, name: str) -> tuple["Scope", Any]:
        """Returns where a name is defined and what makes it: None for an input of a graph."""
        if (tensor := self._tensors.get(name)) is not None:
            return self, tensor
        if (node := self._nodes.get(name)) is not None:
            return self, node
        return (self, None) if name in self._inputs or self.outer is None else self.outer.find(name)

    def inner(self) -> Iterator[tuple[NodeProto, tuple["Scope", ...]]]:
        """Yields the nodes in their order with the graphs in their attributes."""
        for index, node in enumerate(self.graph.node):
            label = self.path + (node.name or f"{node.op_type}_{index}")
            graphs = [(a.name, g) for a in node.attribute for g in ([a.g] if a.type == 5 else [])]
            yield node, tuple(Scope(g, self, f"{label}.{name}/") for name, g in graphs)

    def scopes(self) -> Iterator["Scope"]:
        """Yields this graph and all graphs in it."""
        yield self
        for _, inner in self.inner():
            for scope in inner:
                yield from scope.scopes()


class Place(NamedTuple):
    """A node in a graph, and its name with the path of its graph."""

    scope: Scope
    node: NodeProto
    name: str

    @property
    def options(self) -> dict[str, Any]:
        """The attributes of the node."""
        return attributes(self.node)

    def input(self, index: int) -> str:
        """Returns the name of an input of the node, empty if it is not given."""
        return self.node.input[index] if index < len(self.node.input) else ""


def recurrent_places(scope: Scope, seen: Counter[str]) -> Iterator[Place]:
    """Yields the recurrent nodes, and those of other domains that look so, in their order.

    A name that another one has, of those that were seen, gets a number behind it.
    """
    count: Counter[str] = Counter()
    for node, inner in scope.inner():
        kind = node.op_type
        if kind in RECURRENT or (node.domain and any(kind.endswith(r) for r in RECURRENT)):
            own = node.name or f"{kind}_{count[kind]}"
            count[kind] += 1
            name = scope.path + (own.lstrip("/") if scope.path else own)
            seen[name] += 1
            yield Place(scope, node, name + f"_{seen[name]}" * (seen[name] > 1))
        for one in inner:
            yield from recurrent_places(one, seen)
