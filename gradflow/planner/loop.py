"""The loop of a plan: joined products and the pointwise rest, step by step."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradflow.planner.evaluate import Evaluator, Multiply, Stack, multiplier, offset
from gradflow.planner.plan import Plan, Weights
from gradflow.planner.products import Side

Leaves = Sequence[Any]
"""Leaves of a pytree, each with the batch in front, or time and the batch."""

Stacks = Mapping[int, Stack]
"""Stacks of affine maps by the number of their block."""


class Options(NamedTuple):
    """How a plan is run.

    Attributes:
      hoist: Whether products of x alone leave the loop.
      keep: Whether the affine maps are kept for the way back, or made again there.
    """

    hoist: bool
    keep: bool


def forward(
    plan: Plan, options: Options, weights: Weights, carry: Leaves, xs: Leaves
) -> tuple[list[Array], Stacks]:
    """The results of every step, and all stacks if they are kept."""
    multiply = multiplier(plan, weights)

    def body(s: list[Array], at: Any) -> tuple[list[Array], Any]:
        x, offsets = at
        evaluator = evaluator_of(plan, weights, s, x, offsets, multiply)
        results = results_of(plan, evaluator)
        stacks = {b: evaluator.stack(b) for b in range(len(plan.blocks))} if options.keep else {}
        return new_carry(plan, results), (results, stacks)

    offsets = offsets_of(plan, weights, xs) if options.hoist else {}
    return jax.lax.scan(body, list(carry), (list(xs), offsets))[1]


def evaluator_of(
    plan: Plan, weights: Weights, carry: Leaves, x: Leaves, begun: Stacks, multiply: Multiply
) -> Evaluator:
    """For a step of a batch, from the stacks that are begun; the others it begins itself."""
    graph = plan.graph
    given = dict(weights.others)
    given.update(zip(graph.carry, carry, strict=True))
    given.update(zip(graph.x, x, strict=True))

    def start(evaluator: Evaluator, index: int) -> Stack:
        return begun[index] if index in begun else offset(plan, weights, evaluator, index)

    return Evaluator(plan, given, start, multiply)


def results_of(plan: Plan, evaluator: Evaluator) -> list[Array]:
    """What a step returns; what depends on parameters alone is the same for all examples."""
    batch = evaluator.value(plan.graph.carry[0]).shape[0]
    shapes = [(batch, *plan.graph.avals[n].shape) for n in plan.results]
    values = [evaluator.value(n) for n in plan.results]
    return [jnp.broadcast_to(v, shape) for v, shape in zip(values, shapes, strict=True)]


def new_carry(plan: Plan, results: Sequence[Array]) -> list[Array]:
    """The leaves of the carry among the results."""
    numbers = plan.graph.results[: len(plan.graph.carry)]
    return [results[plan.results.index(n)] for n in numbers]


def at_all_times(function: Callable[..., Any], *sequences: Any) -> Any:
    """A function of a batch, applied to the examples of all steps as to one batch."""
    steps, batch = jax.tree.leaves(sequences)[0].shape[:2]
    flat = jax.tree.map(lambda leaf: leaf.reshape(steps * batch, *leaf.shape[2:]), sequences)
    results = function(*flat)
    return jax.tree.map(lambda leaf: leaf.reshape(steps, batch, *leaf.shape[1:]), results)


def offsets_of(plan: Plan, weights: Weights, xs: Leaves) -> Stacks:
    """What every block with products of x begins with, at all steps."""

    def offsets(x: Leaves) -> Stacks:
        nothing = [None for _ in plan.graph.carry]
        evaluator = evaluator_of(plan, weights, nothing, x, {}, as_they_are)
        return {
            b: offset(plan, weights, evaluator, b)
            for b, block in enumerate(plan.blocks)
            if block.input_sides
        }

    return at_all_times(offsets, list(xs))


def as_they_are(side: Side, vector: Array, stacks: list[Stack]) -> list[Stack]:
    """Adds nothing to stacks: they are complete."""
    del side, vector
    return stacks
