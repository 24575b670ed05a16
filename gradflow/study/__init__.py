"""What every experiment shares: flags, the record of a run, figures, and where they come from.

An experiment's file defines a `Config`, a run, a figure, a summary and claims, and names them in an
`Experiment`; `main` does the rest. Nothing here knows what is measured.
"""

from gradflow.study import figure
from gradflow.study.claims import (
    Claim,
    Measured,
    Reference,
    Verdict,
    from_record,
    to_record,
)
from gradflow.study.config import Config, field
from gradflow.study.console import progress, table
from gradflow.study.decide import claim, derived, numbers, statement
from gradflow.study.experiment import Experiment, Once, Picture, call
from gradflow.study.gallery import export
from gradflow.study.record import params_folder, read_environment
from gradflow.study.runner import main
from gradflow.study.settings import precision
from gradflow.study.store import read_dataset, write_dataset

__all__ = [
    "Claim",
    "Config",
    "Experiment",
    "Measured",
    "Once",
    "Picture",
    "Reference",
    "Verdict",
    "call",
    "claim",
    "derived",
    "export",
    "field",
    "figure",
    "from_record",
    "main",
    "numbers",
    "params_folder",
    "precision",
    "progress",
    "read_dataset",
    "read_environment",
    "statement",
    "table",
    "to_record",
    "write_dataset",
]
