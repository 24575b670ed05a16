"""Mirrors what is measured during a training to TensorBoard and Weights & Biases."""

import importlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gradflow.report.live.measure import Measured


class Boards:
    """Writes scalars of each layer: horizon, factor per step, saturation, first non-finite step.

    Args:
      folder: Where TensorBoard's event files go.
      tensorboard: Whether event files are written, by tensorboardX.
      wandb: Whether the active run of Weights & Biases gets the scalars.

    Raises:
      ValueError: If a package is not installed, or there is no active run.
    """

    def __init__(self, folder: Path, tensorboard: bool, wandb: bool) -> None:
        self._wandb = _active_run() if wandb else None
        self._writer = None
        if tensorboard:
            try:
                from tensorboardX import SummaryWriter
            except ImportError:
                raise ValueError(
                    "Event files need tensorboardX, which is not installed. Install it with "
                    "pip install 'gradflow-rnn[tensorboard]', or remove tensorboard=True."
                ) from None
            self._writer = SummaryWriter(str(folder))

    def show(self, update: int, found: Mapping[str, Measured]) -> None:
        """Writes the scalars of one update. A value that is not finite is left out."""
        scalars = {name: value for name, value in _scalars(found).items() if math.isfinite(value)}
        if self._writer is not None:
            for name, value in scalars.items():
                self._writer.add_scalar(name, value, update)
            self._writer.flush()
        if self._wandb is not None:
            # Without commit=False the step of the user's own metrics would advance.
            self._wandb.log(scalars | {"gradflow/update": update}, commit=False)

    def close(self) -> None:
        """Closes the event file."""
        if self._writer is not None:
            self._writer.close()


def _active_run() -> Any:
    try:
        run = importlib.import_module("wandb").run
    except ImportError:
        run = None
    if run is None:
        raise ValueError(
            "Expected an active run of Weights & Biases with wandb=True, got none. Call wandb.init "
            "first, or remove wandb=True."
        )
    return run


def _scalars(found: Mapping[str, Measured]) -> dict[str, float]:
    scalars = {}
    for name, one in found.items():
        scalars[f"gradflow/{name}/horizon"] = one.horizon
        scalars[f"gradflow/{name}/factor"] = one.factor
        scalars[f"gradflow/{name}/nonfinite_step"] = float(one.nonfinite_step)
        for gate, parts in one.saturation.items():
            for end, part in zip(("shut", "open"), parts, strict=True):
                scalars[f"gradflow/{name}/{gate}_{end}"] = part
    return scalars
