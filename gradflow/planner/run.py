"""A plan followed over a batch of sequences, in the pytrees of its cell."""

from typing import Any

import jax
from jaxtyping import Array, Float, PyTree

from gradflow.cell import Carry, Params
from gradflow.planner.loop import Options
from gradflow.planner.plan import Plan, weights_of
from gradflow.planner.tangent import unrolled


def follow(
    plan: Plan, options: Options, params: Params, carry: Carry, xs: Any
) -> tuple[PyTree[Float[Array, "steps batch ..."]], Float[Array, "steps batch hidden"]]:
    """The carries s_1 ... s_T and the outputs h_1 ... h_T of a batch.

    Args:
      plan: The plan of one example's step.
      options: How it is run.
      params: The parameters.
      carry: s_0, with the batch in front of each leaf.
      xs: What the step takes at each time, (T, B, ...) for each leaf.
    """
    leaves, tree = jax.tree.flatten(carry)
    weights = weights_of(plan, params)
    results = unrolled(plan, options, weights, leaves, jax.tree.leaves(xs))
    *carries, outputs = (results[plan.results.index(n)] for n in plan.graph.results)
    return jax.tree.unflatten(tree, carries), outputs
