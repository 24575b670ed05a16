"""Evaluates a plan's graph for a batch of examples, one block of affine maps at a time."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.unroll.planner.graph import PARAMS
from gradflow.unroll.planner.plan import Plan, Weights, sum_of
from gradflow.unroll.planner.products import Side

Stack = Float[Array, "..."]
"""The affine maps of a block, concatenated along the last axis; with or without batch axis."""

Values = Mapping[int, Any]
"""Values of a graph by number; all but those of parameters alone have the batch in front."""

Multiply = Callable[[Side, Array, list[Stack]], list[Stack]]
"""Adds the products with a vector to the stacks of all blocks that multiply it."""


class Evaluator:
    """Computes the values of a plan's graph, each on first use."""

    def __init__(
        self,
        plan: Plan,
        given: Values,
        start: Callable[["Evaluator", int], Stack],
        multiply: Multiply,
    ) -> None:
        """Starts from given values.

        Args:
          plan: The plan.
          given: Values by number: the carry, x, and those of parameters alone.
          start: Computes the stack of a block without its products with the carry.
          multiply: Adds the products with the carry.
        """
        self._plan, self._known = plan, dict(given)
        self._start, self._multiply = start, multiply
        self.stacks: dict[int, Stack] = {}
        self._multiplied: set[Side] = set()

    def value(self, number: int) -> Any:
        """Computes the value with this number."""
        if number not in self._known:
            if number in self._plan.block_of:
                self._finish(self._plan.block_of[number])
            else:
                self._evaluate(number)
        return self._known[number]

    def _evaluate(self, number: int) -> None:
        node = self._plan.graph.made_by[number]
        depends = self._plan.graph.depends
        axes = tuple(None if depends[n] == PARAMS else 0 for n in node.operands)
        values = [self.value(n) for n in node.operands]
        results = jax.vmap(node.apply, in_axes=axes)(*values)
        self._known.update(zip(node.results, results, strict=True))

    def _finish(self, index: int) -> None:
        """Completes a block, and splits it into the values of its maps."""
        block = self._plan.blocks[index]
        for side in block.carry_sides:
            if side not in self._multiplied:
                users = self._plan.users(side)
                vector = self.value(side.value)
                stacks = self._multiply(side, vector, [self._begun(b) for b in users])
                self.stacks.update(zip(users, stacks, strict=True))
                self._multiplied.add(side)
        maps = split(self._begun(index), block.sizes)
        self._known.update(zip((affine.root for affine in block.maps), maps, strict=True))

    def stack(self, index: int) -> Stack:
        """Computes the complete stack of a block."""
        self._finish(index)
        return self.stacks[index]

    def _begun(self, index: int) -> Stack:
        if index not in self.stacks:
            self.stacks[index] = self._start(self, index)
        return self.stacks[index]


def offset(plan: Plan, weights: Weights, evaluator: Evaluator, index: int) -> Stack:
    """Computes a block without its products with the carry: products with x, and biases.

    It has no batch axis if there are no products with x.
    """
    block = plan.blocks[index]
    parts = [
        jnp.dot(evaluator.value(side.value), W.T, precision=side.precision)
        for side, W in zip(block.input_sides, weights.by_input[index], strict=True)
    ]
    if index in weights.biases:
        parts.append(weights.biases[index])
    dtype = plan.graph.avals[block.maps[0].root].dtype
    return sum_of(parts) if parts else jnp.zeros(block.size, dtype)


def multiplier(plan: Plan, weights: Weights) -> Multiply:
    """Makes the function that multiplies by the joined matrices, one product for all blocks."""
    transposed = [W.T for W in weights.by_carry]  # once, outside of the loop

    def multiply(side: Side, vector: Array, stacks: list[Stack]) -> list[Stack]:
        matrix = transposed[plan.sides.index(side)]
        return add_parts(jnp.dot(vector, matrix, precision=side.precision), stacks)

    return multiply


def complete_already(side: Side, vector: Array, stacks: list[Stack]) -> list[Stack]:
    """Adds nothing to stacks that contain the products with the carry already."""
    del side, vector
    return stacks


def add_parts(product: Float[Array, "... sizes"], stacks: Sequence[Stack]) -> list[Stack]:
    """Adds to each stack its part of a product with the joined matrices."""
    parts = split(product, [stack.shape[-1] for stack in stacks])
    return [stack + part for stack, part in zip(stacks, parts, strict=True)]


def split(stack: Float[Array, "... sizes"], sizes: Sequence[int]) -> Sequence[Array]:
    """Splits along the last axis into parts of these sizes.

    The transpose of `jax.lax.split` concatenates the cotangents; slices would each be padded to
    the full size and added up.
    """
    return jax.lax.split(stack, sizes, axis=stack.ndim - 1) if len(sizes) > 1 else [stack]
