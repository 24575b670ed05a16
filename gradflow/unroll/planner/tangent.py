"""A plan executed over a batch of sequences, and its derivative.

With z_t the stacked affine maps of step t, and the rest of the step pointwise::

    z_t = W v_t + U x_t + b        s_t = φ(s_{t-1}, x_t, z_t)

where v_t is the carry or computed from it. What changes of the parameters and of x add to z is
computed for all steps at once, outside the loop::

    e = (dW) v + U dx + (dU) x + db
    dz_t = W dv_t + e_t        ds_t = φ' (ds_{t-1}, dx_t, dz_t)

Transposed, the loop emits the cotangent of e_t at each step, and one product over all steps and
examples after the loop forms the gradient of W. As this is a rule for the tangent, and not for
reverse mode alone, forward mode, second derivatives and `jax.vmap` work as everywhere.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float, PyTree

from gradflow.cell import Carry, Params
from gradflow.unroll.planner.evaluate import Stack, add_parts, complete_already, multiplier, offset
from gradflow.unroll.planner.loop import (
    Leaves,
    Stacks,
    evaluator_of,
    forward,
    new_carry,
    results_of,
    trajectory_of,
)
from gradflow.unroll.planner.plan import Plan, Weights, weights_of
from gradflow.unroll.planner.products import Side


def run_plan(
    plan: Plan, keep: bool, params: Params, carry: Carry, xs: Any
) -> tuple[PyTree[Float[Array, "steps batch ..."]], Float[Array, "steps batch hidden"]]:
    """Computes the carries s_1 ... s_T and the outputs h_1 ... h_T of a batch.

    Args:
      plan: The plan of one example's step.
      keep: Whether the affine maps are stored for the backward pass, or recomputed there.
      params: The parameters.
      carry: s_0, with the batch in front of each leaf.
      xs: The inputs of the step at each time, (T, B, ...) for each leaf.
    """

    @jax.custom_jvp
    def all_steps(weights: Weights, carry: list[Array], xs: list[Array]) -> list[Array]:
        return forward(plan, keep, weights, carry, xs)[0]

    all_steps.defjvp(partial(_tangent, plan, keep), symbolic_zeros=True)
    leaves, tree = jax.tree.flatten(carry)
    return trajectory_of(
        plan, tree, all_steps(weights_of(plan, params), leaves, jax.tree.leaves(xs))
    )


def _tangent(
    plan: Plan, keep: bool, primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[list[Array], list[Array]]:
    weights, carry, xs = primals
    d_weights, d_carry, d_xs = tangents
    results, stacks = forward(plan, keep, weights, carry, xs)
    before = [
        jnp.concatenate([s_0[None], leaf[:-1]])
        for s_0, leaf in zip(carry, new_carry(plan, results), strict=True)
    ]
    changes = _changes(plan, (weights, xs), (d_weights, d_xs), before, stacks)
    moving = {i: d for i, d in enumerate(d_xs) if not isinstance(d, SymbolicZero)}
    multiply = multiplier(plan, weights)

    def body(ds: list[Array], at: Any) -> tuple[list[Array], list[Array]]:
        s, x, dx, z, e = at
        if not keep:
            evaluator = evaluator_of(plan, weights, s, x, {}, multiply)
            z = {b: evaluator.stack(b) for b in range(len(plan.blocks))}
        dx = [dx.get(i, zero) for i, zero in enumerate(d_xs)]
        tangents = d_weights.others, ds, dx, e
        d_results = _jvp(partial(_step, plan, weights), (weights.others, s, x, z), tangents)
        return new_carry(plan, d_results), d_results

    ds_0 = [
        jnp.zeros_like(s) if isinstance(d, SymbolicZero) else d
        for d, s in zip(d_carry, carry, strict=True)
    ]
    steps = before, xs, moving, stacks, changes
    # Without the checkpoint, reverse mode would store the intermediate values of every step.
    return results, jax.lax.scan(jax.checkpoint(body, prevent_cse=False), ds_0, steps)[1]


def _step(
    plan: Plan,
    weights: Weights,
    others: Mapping[int, Any],
    carry: Leaves,
    x: Leaves,
    stacks: Stacks,
) -> list[Array]:
    """A step whose affine maps are known but still have a tangent along the carry."""

    def multiply(side: Side, vector: Array, begun: list[Stack]) -> list[Stack]:
        W = weights.by_carry[plan.sides.index(side)]
        return _moved(side.precision, vector, W, begun)

    evaluator = evaluator_of(plan, weights._replace(others=others), carry, x, stacks, multiply)
    return results_of(plan, evaluator)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _moved(precision: Any, vector: Array, W: Array, stacks: list[Stack]) -> list[Stack]:
    """Returns stacks that already contain the products of W with the vector.

    Their tangent is that of the products; the products themselves are not computed again.
    """
    del precision, vector, W
    return stacks


@_moved.defjvp
def _moved_tangent(precision: Any, primals: Any, tangents: Any) -> tuple[list[Stack], list[Stack]]:
    _, W, stacks = primals
    d_vector, _, d_stacks = tangents  # the part of dW is in `_changes`
    product = jax.lax.dot_general(d_vector, W, (((1,), (1,)), ((), ())), precision=precision)
    return stacks, add_parts(product, d_stacks)


def _changes(
    plan: Plan,
    primals: tuple[Weights, Leaves],
    tangents: tuple[Any, Any],
    before: Leaves,
    stacks: Stacks,
) -> Stacks:
    """e of each block at all steps: what changes of the parameters and of x add to it."""
    weights, xs = primals

    def vectors(before: Leaves, x: Leaves, stacks: Stacks) -> list[Array]:
        multiply = complete_already if stacks else multiplier(plan, weights)
        evaluator = evaluator_of(plan, weights, before, x, stacks, multiply)
        return [evaluator.value(side.value) for side in plan.sides]

    @partial(jax.checkpoint, prevent_cse=False)
    def changes(before: list[Array], stacks: Stacks) -> Stacks:
        v = _at_all_times(vectors, before, list(xs), stacks)

        def total(weights: Weights, xs: list[Array]) -> Stacks:
            return _stacks_of(plan, weights, xs, v)

        return _jvp(total, (weights, list(xs)), tangents)

    return changes(list(before), stacks)


def _stacks_of(plan: Plan, weights: Weights, xs: Leaves, vectors: Leaves) -> Stacks:
    """The stacks of all blocks at all steps, for these vectors that depend on the carry."""

    def offsets(x: Leaves) -> Stacks:
        nothing = [None for _ in plan.graph.carry]
        evaluator = evaluator_of(plan, weights, nothing, x, {}, complete_already)
        return {
            b: offset(plan, weights, evaluator, b)
            for b, block in enumerate(plan.blocks)
            if block.input_sides
        }

    stacks = dict(_at_all_times(offsets, list(xs)))
    for b, block in enumerate(plan.blocks):
        if b not in stacks:  # it has products with the carry and biases alone
            zeros = jnp.zeros(block.size, plan.graph.avals[block.maps[0].root].dtype)
            stacks[b] = weights.biases.get(b, zeros)
    for side, v, W in zip(plan.sides, vectors, weights.by_carry, strict=True):
        flat = jnp.dot(v.reshape(-1, v.shape[-1]), W.T, precision=side.precision)
        product = flat.reshape(*v.shape[:2], -1)
        users = plan.users(side)
        parts = add_parts(product, [stacks[b] for b in users])
        stacks.update(zip(users, parts, strict=True))
    return stacks


def _at_all_times(function: Callable[..., Any], *sequences: Any) -> Any:
    """Applies a function of a batch to the examples of all steps as one large batch."""
    steps, batch = jax.tree.leaves(sequences)[0].shape[:2]
    flat = jax.tree.map(lambda leaf: leaf.reshape(steps * batch, *leaf.shape[2:]), sequences)
    results = function(*flat)
    return jax.tree.map(lambda leaf: leaf.reshape(steps, batch, *leaf.shape[1:]), results)


def _jvp(function: Callable[..., Any], primals: Any, tangents: Any) -> Any:
    """The tangent of a function, some of whose arguments have the tangent zero."""
    leaves, tree = jax.tree.flatten(primals)
    d_leaves = jax.tree.leaves(tangents, is_leaf=lambda d: isinstance(d, SymbolicZero))
    moving = [i for i, d in enumerate(d_leaves) if not isinstance(d, SymbolicZero)]

    def of_moving(*values: Array) -> Any:
        all_leaves = list(leaves)
        for i, value in zip(moving, values, strict=True):
            all_leaves[i] = value
        return function(*jax.tree.unflatten(tree, all_leaves))

    return jax.jvp(of_moving, [leaves[i] for i in moving], [d_leaves[i] for i in moving])[1]
