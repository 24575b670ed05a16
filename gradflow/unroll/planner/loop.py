"""The loop of a plan: at each step the joined products and the pointwise rest."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from gradflow.cell import Carry, Params
from gradflow.unroll.planner.evaluate import Evaluator, Multiply, Stack, multiplier, offset
from gradflow.unroll.planner.plan import Plan, Weights, weights_of

Leaves = Sequence[Any]
"""Leaves of a pytree, each with the batch in front, or time and the batch."""

Stacks = Mapping[int, Stack]
"""Stacks of affine maps by the number of their block."""


def run_joined(
    plan: Plan, remat: bool, params: Params, carry: Carry, xs: Any
) -> tuple[PyTree[Float[Array, "steps batch ..."]], Float[Array, "steps batch hidden"]]:
    """Computes the carries and outputs of a batch by a scan that JAX differentiates by itself.

    A step's products are joined; the gradients of the matrices are summed step by step.

    Args:
      plan: The plan of one example's step.
      remat: Whether the backward pass recomputes all of a step but its carry.
      params: The parameters.
      carry: s_0, with the batch in front of each leaf.
      xs: The inputs of the step at each time, (T, B, ...) for each leaf.
    """
    leaves, tree = jax.tree.flatten(carry)
    weights = weights_of(plan, params)
    results, _ = forward(plan, False, weights, leaves, jax.tree.leaves(xs), remat=remat)
    return trajectory_of(plan, tree, results)


def forward(
    plan: Plan, keep: bool, weights: Weights, carry: Leaves, xs: Leaves, *, remat: bool = False
) -> tuple[list[Array], Stacks]:
    """Computes the results of every step, and returns all stacks if they are kept.

    With ``remat``, reverse mode through the loop stores its carries alone.
    """
    multiply = multiplier(plan, weights)

    def body(s: list[Array], x: list[Array]) -> tuple[list[Array], Any]:
        evaluator = evaluator_of(plan, weights, s, x, {}, multiply)
        results = results_of(plan, evaluator)
        stacks = {b: evaluator.stack(b) for b in range(len(plan.blocks))} if keep else {}
        return new_carry(plan, results), (results, stacks)

    body = jax.checkpoint(body, prevent_cse=False) if remat else body
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


def trajectory_of(
    plan: Plan, tree: Any, results: Sequence[Array]
) -> tuple[PyTree[Float[Array, "steps batch ..."]], Float[Array, "steps batch hidden"]]:
    """Returns the carries, with their structure, and the outputs from the results of all steps."""
    *carries, outputs = (results[plan.results.index(n)] for n in plan.graph.results)
    return jax.tree.unflatten(tree, carries), outputs
