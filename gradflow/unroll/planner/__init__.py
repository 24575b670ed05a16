"""A faster scan of a step: products joined, and the gradients of matrices formed after the loop."""

from gradflow.unroll.planner.loop import run_joined
from gradflow.unroll.planner.plan import plan_of
from gradflow.unroll.planner.rows import plan_for_rows, pull_by_plan
from gradflow.unroll.planner.tangent import run_plan

__all__ = ["plan_for_rows", "plan_of", "pull_by_plan", "run_joined", "run_plan"]
