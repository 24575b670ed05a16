"""A faster scan of a step: products joined, and the gradients of matrices formed after the loop."""

from gradflow.unroll.planner.loop import run_joined
from gradflow.unroll.planner.plan import plan_of
from gradflow.unroll.planner.tangent import run_plan

__all__ = ["plan_of", "run_joined", "run_plan"]
