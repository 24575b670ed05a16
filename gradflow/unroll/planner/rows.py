"""Rows pulled back through one step, with the matrices of its gates combined beforehand.

With z the stacked affine maps of a step, v the vectors that they multiply, and the rest pointwise::

    z = W v(s) + U x + b        s' = φ(s, x, z)        J = ∂φ/∂s + (∂φ/∂z W) ∂v/∂s

Reverse mode pulls rows R back as (R ∂φ/∂z) W, a product with every row of W. An LSTM has four of
them for each unit, but only two numbers of the carry: R (∂φ/∂z W) takes half of the operations, and
a third of them for a GRU whose reset gate comes after its product. ∂φ/∂z W itself takes no product:
the columns of W go through the derivative of φ.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from gradflow.cell import Carry, Params
from gradflow.numerics.exact_slopes import exact_slopes
from gradflow.unroll.planner.evaluate import complete_already, multiplier, split
from gradflow.unroll.planner.graph import CARRY, Graph
from gradflow.unroll.planner.loop import Stacks, evaluator_of, new_carry, results_of
from gradflow.unroll.planner.plan import Plan, plan_of, sum_of, weights_of
from gradflow.unroll.planner.products import Side

POINTWISE = 32
"""Multiplications in the time in which one number goes through the derivative of φ."""

EXPENSIVE = frozenset("dot_general conv_general_dilated scan while cond".split())
"""Operations that are no part of φ, which the columns of W as well as the rows go through."""


def plan_for_rows(
    step: Callable[..., Any], params: Params, carry: Carry, x: Any, num_rows: int
) -> Plan | None:
    """Plans a step for `pull_by_plan`; None where that takes no fewer operations.

    Args:
      step: The step of one example.
      params: Its parameters; as of the carry and the input, only the shapes matter.
      carry: The carry.
      x: The input.
      num_rows: The number of rows that are pulled back.
    """
    plan = plan_of(step, params, carry, x)
    if plan.unfit or not plan.sides or not _is_flat(plan):
        return None
    size = sum(plan.graph.avals[n].size for n in plan.graph.carry)
    plain = combined = 0
    for side in plan.sides:
        width = plan.graph.avals[side.value].size
        height = sum(plan.blocks[b].size for b in plan.users(side))
        plain += num_rows * height * (width + POINTWISE)
        combined += width * (num_rows * size + height * POINTWISE)
    return plan if combined < plain else None


def _is_flat(plan: Plan) -> bool:
    """Whether no vector is computed from an affine map, and the rest of the step is pointwise."""
    graph = plan.graph
    vectors = _computed_from(graph, plan, [side.value for side in plan.sides])
    if any(value in plan.block_of for value in vectors):
        return False
    rest = vectors | _computed_from(graph, plan, graph.results)
    nodes = [graph.made_by[n] for n in rest if n in graph.made_by and n not in plan.block_of]
    return not any(
        node.name in EXPENSIVE and graph.depends[node.results[0]] == CARRY for node in nodes
    )


def _computed_from(graph: Graph, plan: Plan, wanted: Sequence[int]) -> set[int]:
    """The values from which others are computed, up to the affine maps."""
    pending, seen = list(wanted), set()
    while pending:
        value = pending.pop()
        if value not in seen:
            seen.add(value)
            if value in graph.made_by and value not in plan.block_of:
                pending += graph.made_by[value].operands
    return seen


def pull_by_plan(
    plan: Plan,
    params: Params,
    carry: Carry,
    x: Any,
    rows: PyTree[Float[Array, "rows ..."]],
    room: float,
) -> PyTree[Float[Array, "rows ..."]]:
    """Computes room · rows · J, where J is the Jacobian of the step by the carry.

    The slopes are those of `exact_slopes`. The room multiplies one factor of each product before
    the other factors do, so that small ones do not underflow.

    Args:
      plan: The plan.
      params: The parameters.
      carry: The carry from which the step starts.
      x: Its input.
      rows: The rows, as the carry's pytree with a leading axis.
      room: A power of two.
    """
    weights = weights_of(plan, params)
    at = [leaf[None] for leaf in jax.tree.leaves(carry)]  # a batch of one
    xs = [jnp.asarray(leaf)[None] for leaf in jax.tree.leaves(x)]
    evaluator = evaluator_of(plan, weights, at, xs, {}, multiplier(plan, weights))
    z = {b: evaluator.stack(b) for b in range(len(plan.blocks))}

    def rest(s: list[Array], z: Stacks) -> list[Array]:
        evaluator = evaluator_of(plan, weights, s, xs, z, complete_already)
        return new_carry(plan, results_of(plan, evaluator))

    def vectors(s: list[Array]) -> list[Array]:
        evaluator = evaluator_of(plan, weights, s, xs, {}, complete_already)
        return [evaluator.value(side.value) for side in plan.sides]

    leaves, tree = jax.tree.flatten(rows)
    direct = _pull(lambda s: rest(s, z), at, [leaf[:, None] * room for leaf in leaves])
    cotangents = [
        _product(leaves, _pushed(plan, side, lambda z: rest(at, z), z, W.T * room), side.precision)
        for side, W in zip(plan.sides, weights.by_carry, strict=True)
    ]
    through = _pull(vectors, at, cotangents)
    return jax.tree.unflatten(tree, [(a + b)[:, 0] for a, b in zip(direct, through, strict=True)])


def _pushed(
    plan: Plan, side: Side, rest: Callable[[Stacks], list[Array]], z: Stacks, columns: Array
) -> list[Float[Array, "columns 1 ..."]]:
    """(∂φ/∂z) W for the matrices that multiply one vector, from the columns of W."""
    users = plan.users(side)
    sizes = [plan.blocks[b].size for b in users]

    def push(column: Array) -> list[Array]:
        dz = jax.tree.map(jnp.zeros_like, dict(z))
        dz.update(zip(users, split(column[None], sizes), strict=True))
        return jax.jvp(exact_slopes(rest), (dict(z),), (dz,))[1]

    return jax.vmap(push)(columns)


def _product(rows: list[Array], pushed: list[Array], precision: Any) -> Float[Array, "rows 1 _"]:
    """Multiplies rows over the carry by columns over the carry, each given by leaves."""
    flat = [
        (r.reshape(len(r), -1), m.reshape(len(m), -1)) for r, m in zip(rows, pushed, strict=True)
    ]
    return sum_of([jnp.dot(r, m.T, precision=precision) for r, m in flat])[:, None]


def _pull(function: Callable[..., Any], at: list[Array], rows: list[Array]) -> list[Array]:
    vjp = jax.vjp(exact_slopes(function), at)[1]
    return jax.vmap(lambda *row: vjp(list(row))[0])(*rows)
