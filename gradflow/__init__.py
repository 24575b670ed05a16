"""gradflow measures how gradients flow through recurrent networks, for any cell."""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

from gradflow.cell import Carry, Cell, Params
from gradflow.unroll import Trajectory, unroll

if TYPE_CHECKING:
    from gradflow.flow import measure
    from gradflow.interop import Net, load
    from gradflow.report import watch

__all__ = ["Carry", "Cell", "Net", "Params", "Trajectory", "load", "measure", "unroll", "watch"]

_LATER = {"Net": "interop", "load": "interop", "measure": "flow", "watch": "report"}
"""Names by the part that has them, which a program that only runs cells need not wait for."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("gradflow-rnn")
    if name == "measure":  # whose datasets plot themselves
        importlib.import_module("gradflow.report.accessor")
    if name in _LATER:
        return getattr(importlib.import_module(f"gradflow.{_LATER[name]}"), name)
    if name in _LATER.values():  # gradflow.report, without an import of its own
        return importlib.import_module(f"gradflow.{name}")
    raise AttributeError(f"module 'gradflow' has no attribute {name!r}")
