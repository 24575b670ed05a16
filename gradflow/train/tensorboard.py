"""The metrics of a training as TensorBoard shows them, one curve a run."""

from pathlib import Path

import numpy as np

from gradflow.train.fit import Progress


class Board:
    """Writes event files to a folder; ``tensorboard --logdir`` shows them while training goes on.

    Args:
      folder: Where; a resumed training's later points are dropped from ``first_update`` on.
      first_update: The update at which the training begins, or goes on.

    Raises:
      ValueError: If tensorboardX is not installed.
    """

    def __init__(self, folder: Path, first_update: int) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise ValueError(
                "tensorboardX is expected for event files, but is not installed: "
                "pip install 'gradflow-rnn[tensorboard]', or leave --tensorboard out"
            ) from None
        self._writer = SummaryWriter(str(folder), purge_step=first_update)

    def __enter__(self) -> "Board":
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def show(self, progress: Progress) -> None:
        """Writes the newest evaluation: a scalar for each metric and run, where it is known."""
        for name, log in progress.metrics.items():
            reached = np.flatnonzero(~np.isnan(log).all(axis=1))
            if len(reached):
                for run, value in enumerate(log[reached[-1]]):
                    self._writer.add_scalar(f"{name}/run_{run}", value, progress.update)
        self._writer.flush()
