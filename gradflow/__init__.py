"""gradflow measures how gradients flow through recurrent nets, for any cell."""

from gradflow.cell import Carry, Cell, Params
from gradflow.unroll import Trajectory, unroll

__all__ = ["Carry", "Cell", "Params", "Trajectory", "unroll"]
