"""Which way of running a step is fastest, by its size: a table, as tune_unroll.py measures it."""

import math
from typing import NamedTuple

from gradflow.planner.plan import Plan


class Rule(NamedTuple):
    """How steps of a size are run.

    Attributes:
      weights: The least number of weights that multiply the carry at a step.
      batch: The largest batch.
      scan: Whether the plain scan is faster than any plan; ``method="planned"`` plans all the same.
      hoist: Whether products of x leave the loop.
      chunk: The number of steps for which they leave it at a time, and after which, on the way
        back, the gradients of matrices are formed; it bounds the memory of both.
    """

    weights: int
    batch: float
    scan: bool
    hoist: bool
    chunk: int


RULES = (
    Rule(weights=0, batch=math.inf, scan=True, hoist=False, chunk=32),
    Rule(weights=0, batch=63, scan=False, hoist=False, chunk=32),
)
"""For CPU: the last one whose sizes fit is followed."""


def recurrent_weights(plan: Plan) -> int:
    """The number of weights that multiply the carry at a step."""
    return sum(
        sum(plan.blocks[b].size for b in plan.users(side)) * plan.graph.avals[side.value].shape[0]
        for side in plan.sides
    )


def choose(plan: Plan, batch: int) -> Rule:
    """The rule for the size of a plan's products with the carry."""
    weights = recurrent_weights(plan)
    return [rule for rule in RULES if rule.weights <= weights and batch <= rule.batch][-1]
