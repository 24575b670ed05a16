"""The plan of a step: what is joined, what leaves the loop, and what the loop needs besides."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.planner.graph import PARAMS, Graph, graph_of
from gradflow.planner.products import Affine, Block, Side, blocks_of


class Weights(NamedTuple):
    """All that a plan takes from the parameters, made once and before the loop.

    Attributes:
      by_carry: For each right side that depends on the carry, the matrices that multiply it.
      by_input: For each block, those of its right sides that depend on x alone.
      biases: What is added to a block's products, by the block's number, where anything is.
      others: Values that the rest of the step takes, by number.
    """

    by_carry: Sequence[Float[Array, "_ _"]]
    by_input: Sequence[Sequence[Float[Array, "_ _"]]]
    biases: Mapping[int, Float[Array, " _"]]
    others: Mapping[int, Any]


@dataclass(frozen=True, eq=False)
class Plan:
    """A step taken apart.

    Attributes:
      graph: Its equations.
      blocks: Its affine maps, joined.
      roots: Where a value that is an affine map lies: block, first entry, size.
      sides: The right sides that depend on the carry.
      results: The distinct values that a step returns, the new carry's first.
      others: The values of parameters alone that are needed besides the affine maps'.
      x_in_loop: Which leaves of x the loop takes, once the maps of x have left it.
    """

    graph: Graph
    blocks: tuple[Block, ...]
    roots: Mapping[int, tuple[int, int, int]]
    sides: tuple[Side, ...]
    results: tuple[int, ...]
    others: tuple[int, ...]
    x_in_loop: tuple[int, ...]

    @property
    def unfit(self) -> str:
        """Why there is nothing to gain from the plan, or why it may not be followed; else empty."""
        if self.graph.has_effects:
            return "its step has side effects"
        if not self.graph.carry:
            return "its carry is empty"
        if not self.blocks:
            return "its step has no product of a matrix of parameters with a vector"
        return ""

    def users(self, side: Side) -> list[int]:
        """The blocks that multiply a right side."""
        return [b for b, block in enumerate(self.blocks) if side in block.carry_sides]


def plan_of(step: Callable, params: Any, carry: Any, x: Any) -> Plan:
    """Plans a step of one example; the arguments need only have shapes and types."""
    graph = graph_of(step, params, carry, x)
    blocks = blocks_of(graph)
    roots = {
        affine.root: (b, sum(block.sizes[:i]), block.sizes[i])
        for b, block in enumerate(blocks)
        for i, affine in enumerate(block.maps)
    }
    sides = tuple(dict.fromkeys(side for block in blocks for side in block.carry_sides))
    in_loop = set(_needed(graph, roots, [*graph.results, *(side.value for side in sides)]))
    by_input = [side.value for block in blocks for side in block.input_sides]
    needed = in_loop | set(_needed(graph, roots, by_input))
    return Plan(
        graph=graph,
        blocks=blocks,
        roots=roots,
        sides=sides,
        results=tuple(dict.fromkeys(graph.results)),
        others=tuple(sorted(n for n in needed if graph.depends[n] == PARAMS)),
        x_in_loop=tuple(n for n in graph.x if n in in_loop),
    )


def _needed(graph: Graph, roots: Mapping[int, Any], wanted: Sequence[int]) -> Iterator[int]:
    """The given values, and those of parameters alone, that the wanted ones are made of."""
    pending, seen = list(wanted), set()
    while pending:
        value = pending.pop()
        if value in seen:
            continue
        seen.add(value)
        if value in roots:  # comes with its block, whose right sides are asked for by themselves
            continue
        if graph.depends[value] == PARAMS or value not in graph.made_by:
            yield value
        else:
            pending += graph.made_by[value].operands


def weights_of(plan: Plan, params: Any) -> Weights:
    """The joined matrices and the rest, by ordinary equations of the parameters."""
    graph = plan.graph
    known = dict(zip(graph.params, jax.tree.leaves(params), strict=True)) | graph.constants

    def value(number: int) -> Any:
        if number not in known:
            node = graph.made_by[number]
            results = node.apply(*(value(n) for n in node.operands))
            known.update(zip(node.results, results, strict=True))
        return known[number]

    def matrix(affine: Affine, side: Side) -> Array:
        parts = [p for p in affine.products if p.side == side]
        return sum_of([value(p.matrix).T if p.axis == 0 else value(p.matrix) for p in parts])

    def stacked(block: Block, side: Side) -> Array:
        return joined([matrix(affine, side) for affine in block.maps])

    def bias(affine: Affine, size: int) -> Array:
        dtype = graph.avals[affine.root].dtype
        return (
            sum_of([value(n) for n in affine.biases]) if affine.biases else jnp.zeros(size, dtype)
        )

    return Weights(
        by_carry=[
            joined([stacked(plan.blocks[b], side) for b in plan.users(side)]) for side in plan.sides
        ],
        by_input=[[stacked(block, side) for side in block.input_sides] for block in plan.blocks],
        biases={
            b: joined([bias(m, n) for m, n in zip(block.maps, block.sizes, strict=True)])
            for b, block in enumerate(plan.blocks)
            if block.has_bias
        },
        others={number: value(number) for number in plan.others},
    )


def joined(arrays: Sequence[Array]) -> Array:
    """Arrays one after the other."""
    return jnp.concatenate(arrays) if len(arrays) > 1 else arrays[0]


def sum_of(arrays: Sequence[Array]) -> Array:
    """The sum of one array or more."""
    first, *others = arrays
    return sum(others, first)
