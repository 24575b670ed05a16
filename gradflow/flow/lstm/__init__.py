"""The paths from c_{t-1} to c_t in an LSTM: their terms, their norms, and what each contributes."""

from gradflow.flow.lstm.decomposition import Decomposition, decomposition
from gradflow.flow.lstm.norms import DecompositionNorms, decomposition_norms
from gradflow.flow.lstm.paths import StepsByPath, steps_by_path

__all__ = [
    "Decomposition",
    "DecompositionNorms",
    "StepsByPath",
    "decomposition",
    "decomposition_norms",
    "steps_by_path",
]
