"""What a training leaves in its folder: its metrics line by line, its checkpoints, its times.

::

    metrics.jsonl   one line an evaluation; the same bytes however often the training was killed
    checkpoints/    the two newest states
    timings.jsonl   one line an evaluation: the seconds that it, and what led to it, took
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gradflow.train.checkpoint import Checkpoints

METRICS, TIMINGS, CHECKPOINTS = "metrics.jsonl", "timings.jsonl", "checkpoints"


class Keeper:
    """Keeps a training in a folder, so that it can be killed at any moment and goes on.

    Args:
      folder: Where; it need not exist.
      identity: The fields that tell this training from others, as JSON holds them.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._checkpoints = Checkpoints(folder / CHECKPOINTS, json.loads(json.dumps(identity)))

    def __enter__(self) -> "Keeper":
        return self

    def __exit__(self, *_: object) -> None:
        self._checkpoints.__exit__()

    def restore(self, like: Any) -> Any | None:
        """The arrays of the newest checkpoint that can be used, with the metrics cut back to it.

        Without one the metrics start anew, and None is returned.

        Raises:
          ValueError: If the checkpoints are of another training; the message has the fields.
        """
        metrics = self.folder / METRICS
        there = metrics.stat().st_size if metrics.exists() else 0
        while restored := self._checkpoints.restore(like):
            size = restored.notes["metrics_bytes"]
            if size <= there:
                os.truncate(metrics, size)
                return restored.tree
            self._checkpoints.discard(restored.step, f"its lines are not all in {METRICS}")
        metrics.write_bytes(b"")
        return None

    def keep(
        self, update: int, arrays: Any, row: Mapping[str, Any], seconds: Mapping[str, float]
    ) -> None:
        """Writes an evaluation's line, and then the checkpoint that counts on it.

        Args:
          update: How many updates have been made.
          arrays: The state, a pytree.
          row: What was found, by name: a number, or one for each run.
          seconds: What was spent, by name.
        """
        _append(self.folder / METRICS, {"update": update, **row})
        _append(self.folder / TIMINGS, {"update": update, **seconds})
        size = (self.folder / METRICS).stat().st_size
        self._checkpoints.save(update, arrays, {"metrics_bytes": size})


def _append(path: Path, row: Mapping[str, Any]) -> None:
    line = json.dumps({name: _plain(value) for name, value in row.items()}, allow_nan=False)
    with open(path, "a", encoding="utf-8") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def _plain(value: Any) -> Any:
    """Numbers as JSON has them, and its lack of nan and inf made up for by strings."""
    value = np.asarray(value).tolist()
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
