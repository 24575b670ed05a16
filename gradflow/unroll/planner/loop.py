"""The loop of a plan: at each step the joined products and the pointwise rest."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradflow.unroll.planner.evaluate import Evaluator, Multiply, Stack, multiplier, offset
from gradflow.unroll.planner.plan import Plan, Weights

Leaves = Sequence[Any]
"""Leaves of a pytree, each with the batch in front, or time and the batch."""

Stacks = Mapping[int, Stack]
"""Stacks of affine maps by the number of their block."""


def forward(
    plan: Plan, keep: bool, weights: Weights, carry: Leaves, xs: Leaves
) -> tuple[list[Array], Stacks]:
    """Computes the results of every step, and returns all stacks if they are kept."""
    multiply = multiplier(plan, weights)

    def body(s: list[Array], x: list[Array]) -> tuple[list[Array], Any]:
        evaluator = evaluator_of(plan, weights, s, x, {}, multiply)
        results = results_of(plan, evaluator)
        stacks = {b: evaluator.stack(b) for b in range(len(plan.blocks))} if keep else {}
        return new_carry(plan, results), (results, stacks)

    return jax.lax.scan(body, list(carry), list(xs))[1]


def evaluator_of(
    plan: Plan, weights: Weights, carry: Leaves, x: Leaves, known: Stacks, multiply: Multiply
) -> Evaluator:
    """Makes the evaluator of one step of a batch; stacks that are known are not computed."""
    graph = plan.graph
    given = dict(weights.others)
    given.update(zip(graph.carry, carry, strict=True))
    given.update(zip(graph.x, x, strict=True))

    def start(evaluator: Evaluator, index: int) -> Stack:
        return known[index] if index in known else offset(plan, weights, evaluator, index)

    return Evaluator(plan, given, start, multiply)


def results_of(plan: Plan, evaluator: Evaluator) -> list[Array]:
    """Computes what a step returns; results of parameters alone are broadcast over the batch."""
    batch = evaluator.value(plan.graph.carry[0]).shape[0]
    shapes = [(batch, *plan.graph.avals[n].shape) for n in plan.results]
    values = [evaluator.value(n) for n in plan.results]
    return [jnp.broadcast_to(v, shape) for v, shape in zip(values, shapes, strict=True)]


def new_carry(plan: Plan, results: Sequence[Array]) -> list[Array]:
    """Selects the leaves of the new carry from the results."""
    numbers = plan.graph.results[: len(plan.graph.carry)]
    return [results[plan.results.index(n)] for n in numbers]
