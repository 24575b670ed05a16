"""The plan of a step: its joined products, and what the loop needs besides them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.unroll.planner.graph import PARAMS, Graph, graph_of
from gradflow.unroll.planner.products import Affine, Block, Side, blocks_of


class Weights(NamedTuple):
    """Everything that a plan takes from the parameters, computed once before the loop.

    Attributes:
      by_carry: For each vector that depends on the carry, the joined matrices that multiply it.
      by_input: For each block, the matrices that multiply its vectors of x alone.
      biases: The bias of each block that has one, by the block's number.
      others: Values of parameters alone that the rest of the step needs, by number.
    """

    by_carry: Sequence[Float[Array, "_ _"]]
    by_input: Sequence[Sequence[Float[Array, "_ _"]]]
    biases: Mapping[int, Float[Array, " _"]]
    others: Mapping[int, Any]


@dataclass(frozen=True, eq=False)
class Plan:
    """A step, decomposed into joined products and the pointwise rest.

    Attributes:
      graph: Its equations.
      blocks: Its affine maps, joined.
      block_of: The block of each value that is an affine map.
      sides: The vectors that depend on the carry and are multiplied by matrices.
      results: The distinct values that a step returns, the new carry first.
      others: The values of parameters alone that are needed besides the affine maps.
    """

    graph: Graph
    blocks: tuple[Block, ...]
    block_of: Mapping[int, int]
    sides: tuple[Side, ...]
    results: tuple[int, ...]
    others: tuple[int, ...]

    @property
    def unfit(self) -> str:
        """Why the plan gains nothing or cannot be executed; empty if it can."""
        if self.graph.has_effects:
            return "its step has side effects"
        if not self.graph.carry:
            return "its carry is empty"
        if not self.blocks:
            return "its step has no product of a matrix of parameters with a vector"
        return ""

    def users(self, side: Side) -> list[int]:
        """The blocks that multiply a vector."""
        return [b for b, block in enumerate(self.blocks) if side in block.carry_sides]


def plan_of(step: Callable, params: Any, carry: Any, x: Any) -> Plan:
    """Plans a step of one example; the arguments need only shapes and types."""
    graph = graph_of(step, params, carry, x)
    blocks = blocks_of(graph)
    block_of = {affine.root: b for b, block in enumerate(blocks) for affine in block.maps}
    sides = tuple(dict.fromkeys(side for block in blocks for side in block.carry_sides))
    multiplied = [s.value for block in blocks for s in (*block.carry_sides, *block.input_sides)]
    others = _others(graph, block_of, [*graph.results, *multiplied])
    return Plan(
        graph=graph,
        blocks=blocks,
        block_of=block_of,
        sides=sides,
        results=tuple(dict.fromkeys(graph.results)),
        others=tuple(sorted(others)),
    )


def _others(graph: Graph, block_of: Mapping[int, int], wanted: Sequence[int]) -> Iterator[int]:
    """The values of parameters alone from which, besides x and carry, the wanted are computed."""
    pending, seen = list(wanted), set()
    while pending:
        value = pending.pop()
        if value in seen:
            continue
        seen.add(value)
        if value in block_of:  # computed with its block, whose vectors are wanted themselves
            continue
        if graph.depends[value] == PARAMS:
            yield value
        elif value in graph.made_by:
            pending += graph.made_by[value].operands


def weights_of(plan: Plan, params: Any) -> Weights:
    """Computes what a plan takes from the parameters, by differentiable operations on them."""
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
    """Concatenates arrays."""
    return jnp.concatenate(arrays) if len(arrays) > 1 else arrays[0]


def sum_of(arrays: Sequence[Array]) -> Array:
    """Sums one array or more."""
    first, *others = arrays
    return sum(others, first)
