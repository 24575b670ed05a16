"""gradflow measures how gradients flow through recurrent networks, for any cell."""

from typing import TYPE_CHECKING, Any

from gradflow.cell import Carry, Cell, Params
from gradflow.unroll import Trajectory, unroll

if TYPE_CHECKING:
    from gradflow.flow import measure

__all__ = ["Carry", "Cell", "Params", "Trajectory", "measure", "unroll"]


def __getattr__(name: str) -> Any:
    # `measure` loads all measurements, which a program that only runs cells need not wait for.
    if name == "measure":
        from gradflow.flow import measure

        return measure
    raise AttributeError(f"module 'gradflow' has no attribute {name!r}")
