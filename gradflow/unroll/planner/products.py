"""The affine maps of a step, in blocks that multiply the same vectors.

An affine map is a sum of products W @ v and of biases, where W and the biases depend on
parameters alone. A block stacks all maps with the same vectors: the gates of an LSTM are one block.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp

from gradflow.unroll.planner.graph import CARRY, PARAMS, Graph, Node


class Side(NamedTuple):
    """A vector that matrices multiply: its number, and the precision of the products."""

    value: int
    precision: Any


class Product(NamedTuple):
    """A product W @ v, with the axis of W that is contracted."""

    side: Side
    matrix: int
    axis: int


@dataclass(frozen=True)
class Affine:
    """W v + W' v' + ... + b + ..., which replaces the equations that compute the value `root`."""

    root: int
    products: tuple[Product, ...]
    biases: tuple[int, ...]

    def sides(self, graph: Graph, depends_on_carry: bool) -> tuple[Side, ...]:
        """The distinct vectors that depend on the carry, or those that do not."""
        sides = {p.side for p in self.products}
        wanted = [s for s in sides if (graph.depends[s.value] == CARRY) == depends_on_carry]
        return tuple(sorted(wanted, key=lambda side: (side.value, str(side.precision))))


@dataclass(frozen=True)
class Block:
    """Stacked affine maps with the same vectors.

    Attributes:
      maps: The maps, in order.
      carry_sides: The vectors that depend on the carry.
      input_sides: The vectors that depend on x alone.
      sizes: The length of each map's result.
    """

    maps: tuple[Affine, ...]
    carry_sides: tuple[Side, ...]
    input_sides: tuple[Side, ...]
    sizes: tuple[int, ...]

    @property
    def size(self) -> int:
        """The length of the stack."""
        return sum(self.sizes)

    @property
    def has_bias(self) -> bool:
        """Whether anything is added to the products."""
        return any(affine.biases for affine in self.maps)


def blocks_of(graph: Graph) -> tuple[Block, ...]:
    """Finds the largest affine maps of a step, and groups them in blocks."""
    found: dict[Any, list[Affine]] = {}
    for affine in _affine_maps(graph):
        sides = affine.sides(graph, True), affine.sides(graph, False)
        found.setdefault((*sides, str(graph.avals[affine.root].dtype)), []).append(affine)
    return tuple(
        Block(tuple(maps), key[0], key[1], tuple(graph.avals[m.root].shape[0] for m in maps))
        for key, maps in found.items()
    )


def _affine_maps(graph: Graph) -> Iterable[Affine]:
    found: dict[int, Affine] = {}
    for node in graph.nodes():
        product = _product(graph, node)
        if product:
            found[node.results[0]] = Affine(node.results[0], (product,), ())
        elif node.name in ("add", "add_any") and len(node.operands) == 2:
            total = _sum(graph, node, found)
            if total:
                for operand in node.operands:
                    found.pop(operand, None)
                found[total.root] = total
    return found.values()


def _product(graph: Graph, node: Node) -> Product | None:
    """The node as a product of a parameter matrix with a vector of data, if it is one."""
    if node.name != "dot_general":
        return None
    contracted, batch = node.eqn.params["dimension_numbers"]
    precision = node.eqn.params["precision"]
    for left in (0, 1):
        if len(node.operands) < 2:
            return None
        matrix, vector = node.operands[left], node.operands[1 - left]
        W, v, out = (graph.avals[n] for n in (matrix, vector, node.results[0]))
        fits = W.ndim == 2 and v.ndim == 1 and not batch[0] and len(contracted[left]) == 1
        same = W.dtype == v.dtype == out.dtype and jnp.issubdtype(W.dtype, jnp.floating)
        known = graph.depends[matrix] == PARAMS and graph.depends[vector] != PARAMS
        if fits and same and known:
            return Product(Side(vector, precision), matrix, contracted[left][0])
    return None


def _sum(graph: Graph, node: Node, found: dict[int, Affine]) -> Affine | None:
    """The node as an affine map, if both its operands belong to one and have its shape."""
    products, biases = [], []
    for operand in node.operands:
        if graph.avals[operand].shape != graph.avals[node.results[0]].shape:
            return None
        if operand in found and graph.uses[operand] == 1:
            products += found[operand].products
            biases += found[operand].biases
        elif graph.depends[operand] == PARAMS:
            biases.append(operand)
        else:
            return None
    return Affine(node.results[0], tuple(products), tuple(biases)) if products else None
