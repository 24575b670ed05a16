"""What a training leaves in its folder: its metrics line by line, its checkpoints, its times.

::

    metrics.jsonl   one line an evaluation; the same bytes however often the training was killed
    checkpoints/    the two newest states
    timings.jsonl   one line an evaluation: the seconds that it, and the updates before it, took

A checkpoint has the checksum of the metrics up to it: a training never resumes with lines that are
not those that it wrote. Of several processes that train together, the first one alone reads and
writes the folder, and tells the others what it has read (`gradflow.processes`).
"""

import contextlib
import hashlib
import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from gradflow.locks import locked
from gradflow.processes import by_first, from_first
from gradflow.train.arrays import from_arrays, on_host, to_arrays
from gradflow.train.checkpoint import Checkpoints

_LOG = logging.getLogger(__name__)

METRICS, TIMINGS, CHECKPOINTS = "metrics.jsonl", "timings.jsonl", "checkpoints"

Logs = Mapping[str, Mapping[str, np.ndarray]]
"""Arrays of float64 by name, in groups by name."""


class Kept(NamedTuple):
    """The checkpoint that a training resumes from.

    Attributes:
      state: The state, of the same kinds of arrays and numbers as the one that was given.
      update: How many updates had been made.
      logs: What had been found so far.
    """

    state: Any
    update: int
    logs: dict[str, dict[str, np.ndarray]]


class Keeper:
    """Keeps a training in a folder, so that it can be killed at any moment and resumed.

    Args:
      folder: The folder; it need not exist.
      identity: The fields that distinguish this training from others, as JSON holds them.

    Raises:
      OSError: If another training is using the folder.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.folder = folder
        self._checksum = hashlib.sha256()  # of the metrics
        self._open = contextlib.ExitStack()
        self._enter(json.loads(json.dumps(identity)))

    @by_first
    def _enter(self, identity: Mapping[str, Any]) -> None:
        with contextlib.ExitStack() as stack:
            stack.enter_context(locked(self.folder))
            checkpoints = Checkpoints(self.folder / CHECKPOINTS, identity)
            self._checkpoints = stack.enter_context(checkpoints)
            self._open = stack.pop_all()

    def __enter__(self) -> "Keeper":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def restore(self, state: Any) -> Kept | None:
        """Reads the newest checkpoint that is intact, and cuts the metrics back to it.

        Without a checkpoint the metrics start anew, and None is returned.

        Args:
          state: A state of the structure, shapes and types that were saved.

        Raises:
          ValueError: If the checkpoints are of another training; the message has the fields.
        """
        kept = from_first(lambda: self._read(state))
        # Only then JAX's arrays: placing them on the devices of all processes takes all processes.
        return kept and kept._replace(state=from_arrays(kept.state, state))

    def _read(self, state: Any) -> Kept | None:
        """Reads the checkpoint, with the arrays of the state by number."""
        metrics = self.folder / METRICS
        there = metrics.read_bytes() if metrics.exists() else b""

        host = on_host(state)

        def like(notes: Mapping[str, Any]) -> tuple[Any, Any]:
            return host, {
                group: {name: np.empty(shape) for name, shape in shapes.items()}
                for group, shapes in notes["logs"].items()
            }

        while restored := self._checkpoints.restore(like):
            notes = restored.notes
            size = notes["metrics_bytes"]
            self._checksum = hashlib.sha256(there[:size])
            if size > len(there):
                reason = f"its lines are not all in {METRICS}"
            elif (
                notes.get("metrics_sha256", self._checksum.hexdigest())
                != self._checksum.hexdigest()
            ):
                reason = f"the lines in {METRICS} are not those that were written"
            else:
                os.truncate(metrics, size)
                _report_devices(notes.get("num_devices", jax.device_count()))
                return Kept(to_arrays(restored.tree[0]), restored.step, restored.tree[1])
            self._checkpoints.discard(restored.step, reason)
        metrics.write_bytes(b"")
        self._checksum = hashlib.sha256()
        return None

    @by_first
    def keep(
        self,
        update: int,
        state: Any,
        logs: Logs,
        row: Mapping[str, Any],
        seconds: Mapping[str, float],
    ) -> None:
        """Writes the line of an evaluation, and then the checkpoint that relies on it.

        Args:
          update: How many updates have been made.
          state: The state, a pytree of arrays and numbers.
          logs: All that has been found so far.
          row: What was found now, by name: numbers or arrays.
          seconds: The seconds that were spent, by name.

        Raises:
          OSError: If they cannot be written, such as on a full disk.
        """
        shapes = {group: {n: a.shape for n, a in log.items()} for group, log in logs.items()}
        try:
            self._checksum.update(_append(self.folder / METRICS, {"update": update, **row}))
            _append(self.folder / TIMINGS, {"update": update, **seconds})
            notes = {
                "metrics_bytes": (self.folder / METRICS).stat().st_size,
                "metrics_sha256": self._checksum.hexdigest(),
                "num_devices": jax.device_count(),
                "logs": shapes,
            }
            self._checkpoints.save(update, (state, logs), notes)
        except (OSError, ValueError) as error:  # of three libraries, most likely for a full disk
            reason = " ".join(str(error).split())[-200:]
            raise OSError(
                f"Expected to write update {update} to {self.folder}, got: {reason}. Make sure "
                "that its disk has room, and run the same command again; the training resumes."
            ) from error


def _report_devices(number: int) -> None:
    if number != jax.device_count():
        _LOG.warning(
            "The training began on %d device(s) and resumes on %d: its results are equal up to "
            "rounding, not bit for bit.",
            number,
            jax.device_count(),
        )


def _append(path: Path, row: Mapping[str, Any]) -> bytes:
    """Appends a row as a line, and returns that line."""
    fields = {name: _plain(value) for name, value in row.items()}
    line = (json.dumps(fields, allow_nan=False) + "\n").encode()
    with open(path, "ab") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
    return line


def _plain(value: Any) -> Any:
    """Numbers as JSON has them; NaN and infinity, which JSON lacks, as strings."""
    value = np.asarray(value).tolist()
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
