"""Trains recurrent networks while measuring their gradient flow.

`gradflow.train.fit` is the driver: evaluations, probes, checkpoints and stopping for any `Source`.
`fresh_sequences` is the source for tasks, whose runs train side by side; `epochs` the source for
finite data. `descend` is a plain scan of updates for trainings inside `jax.jit`. The other modules
are the parts of an update: losses, clipping, truncation, regularisers.
"""

from gradflow.train.clipping import CLIPPINGS, Clipping, resolve_clipping
from gradflow.train.descent import Descent, descend, step
from gradflow.train.driver import Progress, Schedule, Source, fit
from gradflow.train.finite import Learned, Learner, epochs
from gradflow.train.fresh import fresh_sequences
from gradflow.train.keeper import Keeper
from gradflow.train.optimisers import Optimiser, resolve_optimiser
from gradflow.train.probes import Probing, resolve_probes
from gradflow.train.regularisers import REGULARISERS, resolve_regulariser
from gradflow.train.runs import Runs, advance, begin, evaluate
from gradflow.train.training import Training
from gradflow.train.truncation import truncated_gradient

__all__ = [
    "CLIPPINGS",
    "REGULARISERS",
    "Clipping",
    "Descent",
    "Keeper",
    "Learned",
    "Learner",
    "Optimiser",
    "Probing",
    "Progress",
    "Runs",
    "Schedule",
    "Source",
    "Training",
    "advance",
    "begin",
    "descend",
    "epochs",
    "evaluate",
    "fit",
    "fresh_sequences",
    "resolve_clipping",
    "resolve_optimiser",
    "resolve_probes",
    "resolve_regulariser",
    "step",
    "truncated_gradient",
]
