"""Methods of running a cell over time: the plain scan, its plan, and many steps at once."""

import logging
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from gradflow.cell import Carry, Cell, Params, StepFn
from gradflow.unroll.parallel import recurrence_of, run_in_parallel
from gradflow.unroll.planner import plan_of, run_joined, run_plan
from gradflow.unroll.rules import rules

CarriesAndOutputs = tuple[PyTree[Float[Array, "steps ..."]], Float[Array, "steps ..."]]
"""The carries s_1 ... s_T and the outputs h_1 ... h_T."""

Runner = Callable[[Carry, Any], CarriesAndOutputs]
"""Runs a cell from s_0 over the inputs of its step at each time."""

METHODS = ("auto", "scan", "joined", "planned", "parallel")
REMATS = ("none", "step", "sqrt")


def runner_of(
    step: StepFn, params: Params, carry: Carry, xs: Any, *, batched: bool, method: str, remat: str
) -> Runner:
    """Makes the runner that a method of `gradflow.unroll` selects for these shapes."""
    run = None
    num_steps, *batch = jax.tree.leaves(xs)[0].shape[: 1 + batched]
    if method == "auto":
        method = rules().method_of(batch[0]) if batched else "scan"
    if num_steps and method in ("joined", "planned"):
        run = _by_plan(step, params, carry, xs, batched=batched, method=method, remat=remat)
    if run is None:
        run = partial(_scan, jax.vmap(step, in_axes=(None, 0, 0)) if batched else step, params)
        run = partial(run, remat == "step")
    if remat == "sqrt" and num_steps:
        run = partial(_in_segments, jax.checkpoint(run, prevent_cse=False), math.isqrt(num_steps))
    return run


def parallel_runner(
    cell: Cell, params: Params, carry: Carry, xs: Any, *, batched: bool, remat: str
) -> Runner:
    """Makes the runner of a cell whose step is affine in the carry.

    Args:
      cell: The cell, without padding.
      params: Its parameters.
      carry: s_0.
      xs: The inputs, or the pair of them and whether each step is real.
      batched: Whether carry and xs have a batch.
      remat: As in `gradflow.unroll`.

    Raises:
      ValueError: If the step is not affine.
    """
    inputs = xs[0] if isinstance(xs, tuple) else xs
    x = _examples(inputs, 1 + batched)
    found = recurrence_of(cell.step, params, _examples(carry, batched), x)
    if found.obstacle:
        raise ValueError(
            "Expected a cell whose step is affine in the carry for method='parallel', got one that "
            f"applies {found.obstacle} to it. Use method='auto', or find the states of one "
            "sequence iteratively by gradflow.unroll.newton.solve_in_parallel."
        )
    run = partial(run_in_parallel, cell, found, params)
    run = jax.vmap(run, in_axes=(0, 1), out_axes=1) if batched else run
    if remat != "none":
        run = jax.checkpoint(run, prevent_cse=False)
    return partial(_in_segments, run, math.isqrt(len(inputs)) if remat == "sqrt" else rules().chunk)


def _scan(step: Callable, params: Params, remat: bool, carry: Carry, xs: Any) -> CarriesAndOutputs:
    def body(s: Carry, x: Any) -> tuple[Carry, tuple[Carry, Array]]:
        s, h = step(params, s, x)
        return s, (s, h)

    return jax.lax.scan(jax.checkpoint(body, prevent_cse=False) if remat else body, carry, xs)[1]


def _by_plan(
    step: StepFn, params: Params, carry: Carry, xs: Any, *, batched: bool, method: str, remat: str
) -> Runner | None:
    """The runner of the step's plan, or None where there is no plan."""
    plan = plan_of(step, params, _examples(carry, batched), _examples(xs, 1 + batched))
    if plan.unfit:
        log = logging.getLogger("gradflow")
        log.debug("The cell is run by a plain scan and not by a plan: %s.", plan.unfit)
        return None
    if method == "joined":
        run = partial(run_joined, plan, remat == "step", params)
    else:
        run = partial(run_plan, plan, remat != "step", params)
        if remat != "sqrt":  # its own segments bound the memory already
            run = partial(_in_segments, run, rules().segment)
    return run if batched else partial(_one, run)


def _examples(tree: Any, axes: int) -> Any:
    """The shape and type of each leaf for one example at one step."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[axes:], leaf.dtype), tree)


def _one(run: Runner, carry: Carry, xs: Any) -> CarriesAndOutputs:
    """Runs one sequence as a batch of one."""
    found = run(jax.tree.map(lambda s: s[None], carry), jax.tree.map(lambda x: x[:, None], xs))
    return jax.tree.map(lambda leaf: leaf[:, 0], found)


def _in_segments(run: Runner, length: int, carry: Carry, xs: Any) -> CarriesAndOutputs:
    """Runs segment after segment, each of at most so many steps and about equally many."""
    num_steps = len(jax.tree.leaves(xs)[0])
    length = _even(num_steps, length)
    whole = num_steps - num_steps % length

    def body(s: Carry, x: Any) -> tuple[Carry, CarriesAndOutputs]:
        found = run(s, x)
        return jax.tree.map(lambda leaf: leaf[-1], found[0]), found

    segments = jax.tree.map(lambda x: x[:whole].reshape(whole // length, length, *x.shape[1:]), xs)
    last, found = jax.lax.scan(body, carry, segments)
    found = jax.tree.map(lambda leaf: leaf.reshape(whole, *leaf.shape[2:]), found)
    if whole == num_steps:
        return found
    rest = run(last, jax.tree.map(lambda x: x[whole:], xs))
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), found, rest)


def _even(num_steps: int, length: int) -> int:
    """The greatest length up to this one, and above its half, that divides the steps; else this.

    A remainder would be a second program to compile.
    """
    length = min(length, num_steps)
    exact = [n for n in range(length, length // 2, -1) if num_steps % n == 0]
    return exact[0] if exact else length
