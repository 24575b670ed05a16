"""Writes the metrics of a training for TensorBoard, one curve per run."""

from pathlib import Path

import numpy as np

from gradflow.train.driver import Progress


class Board:
    """Writes event files to a folder, which ``tensorboard --logdir`` shows during the training.

    Args:
      folder: The folder. Points from ``first_update`` on, of an interrupted training, are dropped.
      first_update: The update at which the training begins or resumes.

    Raises:
      ValueError: If tensorboardX is not installed.
    """

    def __init__(self, folder: Path, first_update: int) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise ValueError(
                "Event files need tensorboardX, which is not installed. Install it with "
                "pip install 'gradflow-rnn[tensorboard]', or remove --tensorboard."
            ) from None
        self._writer = SummaryWriter(str(folder), purge_step=first_update)

    def __enter__(self) -> "Board":
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def show(self, progress: Progress) -> None:
        """Writes the newest evaluation: a scalar for each metric and run that is known."""
        for name, log in progress.metrics.items():
            reached = np.flatnonzero(~np.isnan(log).all(axis=1))
            if len(reached):
                for run, value in enumerate(log[reached[-1]]):
                    self._writer.add_scalar(f"{name}/run_{run}", value, progress.update)
        self._writer.flush()
