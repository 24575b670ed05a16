"""The source of trainings on tasks: every update and evaluation has freshly generated sequences."""

from functools import partial

import jax.numpy as jnp
import numpy as np

from gradflow.train.driver import Progress, Source
from gradflow.train.probes import Probing, probe
from gradflow.train.runs import Runs, advance, evaluate, placed
from gradflow.train.training import Training

AVERAGES = ("clip_cosine", "clip_ratio", "clip_share", "grad_norm", "regulariser", "train_loss")
"""What `advance` averages over its updates."""


def fresh_sequences(training: Training, runs: Runs, probing: Probing | None = None) -> Source:
    """Makes the source that trains runs on fresh sequences of their task.

    A training stops early when every run has solved its task or diverged.

    Args:
      training: What is trained on what.
      runs: From `begin`.
      probing: What is measured during the training, if anything.

    Raises:
      ValueError: When it is probed, if the cell lacks what a probe measures.
    """

    def measure(runs: Runs) -> dict[str, np.ndarray]:
        assert probing is not None
        return probe(training.cell, training.task, runs.params, probing)

    return Source(
        placed(training, runs),
        partial(advance, training),
        partial(evaluate, training),
        averages={name: runs.update.shape for name in AVERAGES},
        is_over=_all_settled,
        probe=None if probing is None else measure,
    )


def _all_settled(progress: Progress) -> bool:
    return bool(jnp.all(progress.state.settled))
