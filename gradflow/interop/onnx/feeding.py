"""Finds which recurrent layers of an ONNX graph feed another one, through changes of shape."""

from typing import NamedTuple

from gradflow.interop.onnx.constants import Constants
from gradflow.interop.onnx.graph import NodeProto, Place, Scope, attributes

UNCHANGED = ("Identity", "Dropout", "Cast")
"""Operators that change neither the axes nor, outside of a training, the values."""


class Source(NamedTuple):
    """The outputs of layers, side by side, with their axes.

    Attributes:
      layers: The names of the layers.
      axes: The axes in their order: T time, N sequences, D directions, H units, F all units.
      size: Size of all their units together.
    """

    layers: tuple[str, ...]
    axes: tuple[str, ...]
    size: int

    def moved(self, axes: tuple[str, ...]) -> "Source":
        """Returns the source with other axes; those of units are one where D is not left."""
        units = ["F" if axis == "H" and "D" not in axes else axis for axis in axes]
        return self._replace(axes=tuple(units))


class Feeding:
    """The layers that feed each other.

    Args:
      constants: The constants of the model.
      layers: The recurrent nodes with the names and the size of their layers.
    """

    def __init__(
        self, constants: Constants, layers: list[tuple[Place, tuple[str, ...], int]]
    ) -> None:
        self._constants = constants
        self._sources: dict[tuple[Scope, str], Source] = {}
        for place, names, hidden in layers:
            axes = tuple("NTDH" if place.options.get("layout", 0) else "TDNH")
            output = place.node.output[0] if place.node.output else ""
            if output:
                source = Source(names, axes, len(names) * hidden)
                self._sources[place.scope, output] = source

    def of(self, place: Place) -> tuple[str, ...]:
        """Returns the names of the layers whose outputs are the inputs X of a node, or none."""
        wanted = tuple("NTF" if place.options.get("layout", 0) else "TNF")
        try:
            source = self._source(place.scope, place.input(0))
        except (ValueError, RecursionError):  # a shape that is not constant
            return ()
        return source.layers if source is not None and source.axes == wanted else ()

    def _source(self, scope: Scope, name: str) -> Source | None:
        place, made = scope.find(name)
        if (place, name) in self._sources:
            return self._sources[place, name]
        if not isinstance(getattr(made, "op_type", None), str):
            return None
        if made.op_type == "Concat":
            return self._joined(place, made)
        if made.op_type not in (*UNCHANGED, "Transpose", "Squeeze", "Reshape"):
            return None
        inner = self._source(place, made.input[0])
        return None if inner is None else self._through(inner, place, made)

    def _joined(self, scope: Scope, node: NodeProto) -> Source | None:
        parts = [self._source(scope, name) for name in node.input]
        found = [part for part in parts if part is not None and part.axes[-1] == "F"]
        last = attributes(node).get("axis") in (-1, 2)
        if not last or len(found) < len(parts) or len({part.axes for part in found}) > 1:
            return None
        names = tuple(name for part in found for name in part.layers)
        return Source(names, found[0].axes, sum(part.size for part in found))

    def _through(self, source: Source, scope: Scope, node: NodeProto) -> Source | None:
        axes = source.axes
        if node.op_type in UNCHANGED:
            return source
        if node.op_type == "Transpose":
            order = attributes(node).get("perm", range(len(axes))[::-1])
            return source.moved(tuple(axes[k] for k in order)) if len(order) == len(axes) else None
        numbers = self._numbers(scope, node)
        if node.op_type == "Squeeze":
            removed = {axes[k] for k in numbers if -len(axes) <= k < len(axes)}
            if removed != {"D"} or len(source.layers) > 1:
                return None
            return source.moved(tuple(axis for axis in axes if axis != "D"))
        # A reshape joins the directions with the units where these axes are neighbours in memory.
        kept = [axis for axis in axes if axis != "D" or len(source.layers) > 1]
        whole = len(numbers) == 3 and numbers[-1] in (-1, source.size)
        if not whole or kept[2:] not in (["D", "H"], ["H"], ["F"]):
            return None
        return source.moved((kept[0], kept[1], "H"))

    def _numbers(self, scope: Scope, node: NodeProto) -> list[int]:
        """Returns the axes of a Squeeze or the shape of a Reshape: an attribute or an input."""
        given = attributes(node)
        if (found := given.get("axes", given.get("shape"))) is not None:
            return [int(number) for number in found]
        if len(node.input) < 2:
            return []
        return [int(number) for number in self._constants.value(scope, node.input[1]).ravel()]
