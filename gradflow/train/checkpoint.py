"""Checkpoints of a training: written whole or not at all, and restored only if they are intact.

Orbax writes and renames them; the two newest are kept. Beside the arrays lie the fields that
identify the training and a digest of the arrays, so that neither the checkpoint of another
training nor a damaged one is restored.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from gradflow.paths import check_room
from gradflow.train.arrays import array_digest, from_arrays, to_arrays

if TYPE_CHECKING:
    import orbax.checkpoint as ocp

NUM_KEPT = 2

OVERHEAD = 2**16
"""Bytes that a checkpoint can take besides its arrays and a quarter of their size."""

_LOG = logging.getLogger(__name__)


class Restored(NamedTuple):
    """What a checkpoint held.

    Attributes:
      step: Its number.
      tree: The arrays and numbers, in the structure and of the kinds that were asked for.
      notes: What was saved beside them.
    """

    step: int
    tree: Any
    notes: dict[str, Any]


class Checkpoints:
    """The checkpoints in a folder, of the training that an identity names.

    Args:
      folder: Where they are; it need not exist.
      identity: The fields that tell this training from others, as JSON holds them.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        import orbax.checkpoint as ocp  # here: it takes half a second, and few trainings need it

        options = ocp.CheckpointManagerOptions(
            max_to_keep=NUM_KEPT,
            create=False,  # with active_processes, Orbax makes no folder
            enable_async_checkpointing=False,
            # Otherwise Orbax waits for all processes, of which one alone keeps checkpoints.
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                primary_host=jax.process_index(), active_processes={jax.process_index()}
            ),
        )
        self.identity = dict(identity)
        folder.mkdir(parents=True, exist_ok=True)
        for draft in folder.glob("*.orbax-checkpoint-tmp*"):  # of a process that was killed
            shutil.rmtree(draft)
        logging.getLogger("absl").addFilter(_is_not_orbax)
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()
        logging.getLogger("absl").removeFilter(_is_not_orbax)

    def save(self, step: int, tree: Any, notes: Mapping[str, Any]) -> None:
        """Saves a pytree of arrays as checkpoint ``step``, above all before, and drops old ones.

        Args:
          step: Its number.
          tree: Arrays, keys of `jax.random` and numbers.
          notes: What is saved beside them, as JSON holds it.

        Raises:
          OSError: If the disk has no room for it.
        """
        import orbax.checkpoint as ocp

        leaves = to_arrays(tree)
        size = sum(leaf.nbytes for leaf in leaves.values())
        check_room(Path(self._manager.directory), size + size // 4 + OVERHEAD)
        about = {"identity": self.identity, "digest": array_digest(leaves), "notes": dict(notes)}
        about["sha256"] = _digest_of_fields(about)
        items = {"arrays": ocp.args.StandardSave(leaves), "about": ocp.args.JsonSave(about)}
        self._manager.save(step, args=ocp.args.Composite(**items))

    def restore(self, like: Callable[[Mapping[str, Any]], Any]) -> Restored | None:
        """Reads the newest checkpoint that is intact; None if there is none.

        A damaged one is reported in a warning and removed, and the one before it is restored.

        Args:
          like: The notes that were saved -> a pytree of the structure, shapes and types that were
            saved with them. Arrays of JAX come back on the devices of those that are given.

        Raises:
          ValueError: If the checkpoint is of another training; the message has the fields.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                about = self._read_about(step)
                self._check_identity(about["identity"])
                tree = self._read_tree(step, like(about["notes"]), about["digest"])
                return Restored(step, tree, about["notes"])
            except _OtherTraining as error:
                raise ValueError(str(error)) from None
            except Exception as error:  # a damaged file fails anywhere in two libraries
                self.discard(step, str(error) or type(error).__name__)
        return None

    def discard(self, step: int, reason: str) -> None:
        """Removes a checkpoint that cannot be used, with a warning."""
        reason = " ".join(reason.split())[:200]
        _LOG.warning("Checkpoint %d is damaged and was discarded (%s).", step, reason)
        self._manager.delete(step)

    def _read_about(self, step: int) -> dict[str, Any]:
        import orbax.checkpoint as ocp

        restored = self._manager.restore(step, args=_composite(about=ocp.args.JsonRestore()))
        about = restored["about"]
        digest = about.pop("sha256", None)  # absent in checkpoints of earlier versions
        if digest is not None and digest != _digest_of_fields(about):
            raise ValueError("its fields are not those that were saved")
        return about

    def _check_identity(self, stored: Mapping[str, Any]) -> None:
        wanted = self.identity
        names = [
            name
            for name in {**stored, **wanted}
            if stored.get(name, "absent") != wanted.get(name, "absent")
        ]
        if names:
            here, there = (
                ", ".join(f"{name}={fields.get(name, 'absent')!r}" for name in names)
                for fields in (wanted, stored)
            )
            raise _OtherTraining(
                f"Expected checkpoints of a training with {here}, got {there} in "
                f"{self._manager.directory.name}. Give each training its own folder."
            )

    def _read_tree(self, step: int, like: Any, digest: str) -> Any:
        import orbax.checkpoint as ocp

        wanted = ocp.args.StandardRestore(to_arrays(like))
        leaves = self._manager.restore(step, args=_composite(arrays=wanted))["arrays"]
        if array_digest(leaves) != digest:
            raise ValueError("its arrays are not those that were saved")
        return from_arrays(leaves, like)


class _OtherTraining(Exception):
    """The checkpoint is not of this training."""


def _is_not_orbax(record: logging.LogRecord) -> bool:
    """Keeps back what orbax logs of its own work: what matters of it is raised."""
    return "orbax" not in record.pathname


def _composite(**items: Any) -> "ocp.args.Composite":
    import orbax.checkpoint as ocp

    return ocp.args.Composite(**items)


def _digest_of_fields(about: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
