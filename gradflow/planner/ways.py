"""The ways to run a cell over time: the plain scan, its plan, and either in segments."""

import logging
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from gradflow.cell import Carry, Params, StepFn
from gradflow.planner.loop import Options
from gradflow.planner.plan import plan_of
from gradflow.planner.rules import choose
from gradflow.planner.run import follow

Steps = tuple[PyTree[Float[Array, "steps ..."]], Float[Array, "steps ..."]]
"""The carries s_1 ... s_T and the outputs h_1 ... h_T."""

Way = Callable[[Carry, Any], Steps]
"""Runs a cell from s_0 over what it takes at each step."""

METHODS = ("auto", "scan", "planned")
REMATS = ("none", "step", "sqrt")


def way_of(
    step: StepFn, params: Params, carry: Carry, xs: Any, *, batched: bool, method: str, remat: str
) -> Way:
    """The way that a method of `gradflow.unroll` means for these shapes."""
    way = None
    num_steps = len(jax.tree.leaves(xs)[0])
    if num_steps and (method == "planned" or (method == "auto" and batched)):
        way = _planned(step, params, carry, xs, batched=batched, method=method, remat=remat)
    if way is None:
        way = partial(_scan, jax.vmap(step, in_axes=(None, 0, 0)) if batched else step, params)
        way = partial(way, remat == "step")
    if remat == "sqrt" and num_steps:
        way = partial(_in_segments, jax.checkpoint(way, prevent_cse=False), math.isqrt(num_steps))
    return way


def _scan(step: Callable, params: Params, remat: bool, carry: Carry, xs: Any) -> Steps:
    def body(s: Carry, x: Any) -> tuple[Carry, tuple[Carry, Array]]:
        s, h = step(params, s, x)
        return s, (s, h)

    return jax.lax.scan(jax.checkpoint(body, prevent_cse=False) if remat else body, carry, xs)[1]


def _planned(
    step: StepFn, params: Params, carry: Carry, xs: Any, *, batched: bool, method: str, remat: str
) -> Way | None:
    """The way of the plan, or None where there is none or, by the rules, it is not the fastest."""
    plan = plan_of(step, params, _examples(carry, batched), _examples(xs, 1 + batched))
    if plan.unfit:
        log = logging.getLogger("gradflow")
        log.debug("a plain scan in place of a plan of the cell: %s", plan.unfit)
        return None
    rule = choose(plan, len(jax.tree.leaves(carry)[0]) if batched else 1)
    if rule.scan and method == "auto":
        return None
    way = partial(follow, plan, Options(rule.hoist, remat != "step"), params)
    if remat != "sqrt":  # which has segments of its own
        way = partial(_in_segments, way, rule.chunk)
    return way if batched else partial(_one, way)


def _examples(tree: Any, axes: int) -> Any:
    """Of each leaf what one example has at one step: its shape and type."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[axes:], leaf.dtype), tree)


def _one(way: Way, carry: Carry, xs: Any) -> Steps:
    """One sequence, as a batch of one."""
    steps = way(jax.tree.map(lambda s: s[None], carry), jax.tree.map(lambda x: x[:, None], xs))
    return jax.tree.map(lambda leaf: leaf[:, 0], steps)


def _in_segments(way: Way, length: int, carry: Carry, xs: Any) -> Steps:
    """Segment after segment, each of about as many steps and at most so many."""
    num_steps = len(jax.tree.leaves(xs)[0])
    length = _even(num_steps, length)
    whole = num_steps - num_steps % length

    def body(s: Carry, x: Any) -> tuple[Carry, Steps]:
        steps = way(s, x)
        return jax.tree.map(lambda leaf: leaf[-1], steps[0]), steps

    segments = jax.tree.map(lambda x: x[:whole].reshape(whole // length, length, *x.shape[1:]), xs)
    last, steps = jax.lax.scan(body, carry, segments)
    steps = jax.tree.map(lambda leaf: leaf.reshape(whole, *leaf.shape[2:]), steps)
    if whole == num_steps:
        return steps
    rest = way(last, jax.tree.map(lambda x: x[whole:], xs))
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), steps, rest)


def _even(num_steps: int, length: int) -> int:
    """The greatest length up to this one, and above its half, that leaves no rest; else this."""
    length = min(length, num_steps)
    exact = [n for n in range(length, length // 2, -1) if num_steps % n == 0]
    return exact[0] if exact else length
