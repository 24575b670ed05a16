"""What every experiment shares: flags, the record of a run, figures, and where they come from.

An experiment's file defines a `Config`, a run, a figure and a closing line, and names them in an
`Experiment`; `main` does the rest. Nothing here knows what is measured.
"""

from gradflow.study import figure
from gradflow.study.config import Config, field
from gradflow.study.console import progress, table, verdict, verdicts
from gradflow.study.experiment import Experiment, Once, call
from gradflow.study.gallery import export
from gradflow.study.runner import main
from gradflow.study.settings import precision
from gradflow.study.store import read_dataset, write_dataset

__all__ = [
    "Config",
    "Experiment",
    "Once",
    "call",
    "export",
    "field",
    "figure",
    "main",
    "precision",
    "progress",
    "read_dataset",
    "table",
    "verdict",
    "verdicts",
    "write_dataset",
]
