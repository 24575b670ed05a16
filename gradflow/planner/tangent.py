"""The tangent of a plan, which reverse mode turns into the way back.

With z_t the stacked affine maps of step t, and all the rest of the step pointwise::

    z_t = W v_t + U x_t + b        s_t = φ(s_{t-1}, x_t, z_t)

where v_t is the carry or made of it. What a change of parameters and x adds to z is formed for
all steps at once, outside the loop::

    e = (dW) v + U dx + (dU) x + db
    dz_t = W dv_t + e_t        ds_t = φ' (ds_{t-1}, dx_t, dz_t)

Transposed, the loop emits the cotangent of e_t at each step, and one product over all steps and
examples after it forms the gradient of W. Being a tangent and no rule for reverse mode alone,
it leaves forward mode, second derivatives and `jax.vmap` as they are anywhere.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array

from gradflow.planner.evaluate import Stack, add_parts, multiplier
from gradflow.planner.loop import (
    Leaves,
    Options,
    Stacks,
    as_they_are,
    at_all_times,
    evaluator_of,
    forward,
    new_carry,
    offsets_of,
    results_of,
)
from gradflow.planner.plan import Plan, Weights
from gradflow.planner.products import Side


def unrolled(
    plan: Plan, options: Options, weights: Weights, carry: Leaves, xs: Leaves
) -> list[Array]:
    """All steps of a batch: the values of `plan.results` at each, stacked along time."""

    @jax.custom_jvp
    def steps(weights: Weights, carry: list[Array], xs: list[Array]) -> list[Array]:
        return forward(plan, options, weights, carry, xs)[0]

    steps.defjvp(partial(_tangent, plan, options), symbolic_zeros=True)
    return steps(weights, list(carry), list(xs))


def _tangent(
    plan: Plan, options: Options, primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[list[Array], list[Array]]:
    weights, carry, xs = primals
    d_weights, d_carry, d_xs = tangents
    results, stacks = forward(plan, options, weights, carry, xs)
    before = [
        jnp.concatenate([s_0[None], leaf[:-1]])
        for s_0, leaf in zip(carry, new_carry(plan, results), strict=True)
    ]
    changes = _changes(plan, (weights, xs), (d_weights, d_xs), before, stacks)
    moving = {i: d for i, d in enumerate(d_xs) if not isinstance(d, SymbolicZero)}
    multiply = multiplier(plan, weights)

    def body(ds: list[Array], at: Any) -> tuple[list[Array], list[Array]]:
        s, x, dx, z, e = at
        if not options.keep:
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
    return results, jax.lax.scan(jax.checkpoint(body, prevent_cse=False), ds_0, steps)[1]


def _step(
    plan: Plan,
    weights: Weights,
    others: Mapping[int, Any],
    carry: Leaves,
    x: Leaves,
    stacks: Stacks,
) -> list[Array]:
    """A step whose affine maps are known, and move with the carry all the same."""

    def multiply(side: Side, vector: Array, begun: list[Stack]) -> list[Stack]:
        W = weights.by_carry[plan.sides.index(side)]
        return _moved(side.precision, vector, W, begun)

    evaluator = evaluator_of(plan, weights._replace(others=others), carry, x, stacks, multiply)
    return results_of(plan, evaluator)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _moved(precision: Any, vector: Array, W: Array, stacks: list[Stack]) -> list[Stack]:
    """The stacks as they are, of which products of W with the vector are known to be a part."""
    del precision, vector, W
    return stacks


@_moved.defjvp
def _moved_tangent(precision: Any, primals: Any, tangents: Any) -> tuple[list[Stack], list[Stack]]:
    _, W, stacks = primals
    d_vector, _, d_stacks = tangents  # what a change of W does is in `_changes`
    product = jax.lax.dot_general(d_vector, W, (((1,), (1,)), ((), ())), precision=precision)
    return stacks, add_parts(product, d_stacks)


def _changes(
    plan: Plan,
    primals: tuple[Weights, Leaves],
    tangents: tuple[Any, Any],
    before: Leaves,
    stacks: Stacks,
) -> Stacks:
    """e for each block, at all steps: what changes of the parameters and of x add to it."""
    weights, xs = primals

    def vectors(before: Leaves, x: Leaves, stacks: Stacks) -> list[Array]:
        multiply = as_they_are if stacks else multiplier(plan, weights)
        evaluator = evaluator_of(plan, weights, before, x, stacks, multiply)
        return [evaluator.value(side.value) for side in plan.sides]

    @partial(jax.checkpoint, prevent_cse=False)
    def changes(before: list[Array], stacks: Stacks) -> Stacks:
        v = at_all_times(vectors, before, list(xs), stacks)

        def total(weights: Weights, xs: list[Array]) -> Stacks:
            return _complete(plan, weights, xs, v)

        return _jvp(total, (weights, list(xs)), tangents)

    return changes(list(before), stacks)


def _complete(plan: Plan, weights: Weights, xs: Leaves, vectors: Leaves) -> Stacks:
    """All stacks at all steps, if the right sides that depend on the carry are these."""
    stacks = dict(offsets_of(plan, weights, xs))
    for b, block in enumerate(plan.blocks):
        if b not in stacks:  # made of the carry and biases alone
            zeros = jnp.zeros(block.size, plan.graph.avals[block.maps[0].root].dtype)
            stacks[b] = weights.biases.get(b, zeros)
    for side, v, W in zip(plan.sides, vectors, weights.by_carry, strict=True):
        flat = jnp.dot(v.reshape(-1, v.shape[-1]), W.T, precision=side.precision)
        product = flat.reshape(*v.shape[:2], -1)
        users = plan.users(side)
        parts = add_parts(product, [stacks[b] for b in users])
        stacks.update(zip(users, parts, strict=True))
    return stacks


def _jvp(function: Callable[..., Any], primals: Any, tangents: Any) -> Any:
    """The tangent of a function, where some of its arguments do not move."""
    leaves, tree = jax.tree.flatten(primals)
    d_leaves = jax.tree.leaves(tangents, is_leaf=lambda d: isinstance(d, SymbolicZero))
    moving = [i for i, d in enumerate(d_leaves) if not isinstance(d, SymbolicZero)]

    def of_moving(*values: Array) -> Any:
        all_leaves = list(leaves)
        for i, value in zip(moving, values, strict=True):
            all_leaves[i] = value
        return function(*jax.tree.unflatten(tree, all_leaves))

    return jax.jvp(of_moving, [leaves[i] for i in moving], [d_leaves[i] for i in moving])[1]
