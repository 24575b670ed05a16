"""Training recurrent nets with their gradient flow in view; losses, clipping and truncation.

`gradflow.train.loop` has the updates of many runs side by side, `gradflow.train.fit` a whole
training with evaluations, probes and checkpoints; the others are the parts of one.
"""

from gradflow.train.clipping import CLIPPINGS, Clipping, resolve_clipping
from gradflow.train.fit import Progress, Schedule, fit
from gradflow.train.keeper import Keeper
from gradflow.train.loop import Runs, Training, advance, begin, evaluate
from gradflow.train.optimisers import Optimiser, resolve_optimiser
from gradflow.train.probes import Probing, resolve_probes
from gradflow.train.regularisers import REGULARISERS, resolve_regulariser
from gradflow.train.truncation import truncated_gradient, truncation_bias

__all__ = [
    "CLIPPINGS",
    "REGULARISERS",
    "Clipping",
    "Keeper",
    "Optimiser",
    "Probing",
    "Progress",
    "Runs",
    "Schedule",
    "Training",
    "advance",
    "begin",
    "evaluate",
    "fit",
    "resolve_clipping",
    "resolve_optimiser",
    "resolve_probes",
    "resolve_regulariser",
    "truncated_gradient",
    "truncation_bias",
]
