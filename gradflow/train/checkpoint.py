"""Checkpoints of a training: there whole or not at all, and taken only if they are intact.

Orbax writes and renames them; the two newest are kept. Beside the arrays lie the fields that
say whose they are and a digest, so that no other training's checkpoint is taken up, and no
damaged one.
"""

import hashlib
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

if TYPE_CHECKING:
    import orbax.checkpoint as ocp

NUM_KEPT = 2

_LOG = logging.getLogger(__name__)


class Restored(NamedTuple):
    """What a checkpoint held.

    Attributes:
      step: Its number.
      tree: The arrays, on the host, in the structure that was asked for.
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
        import orbax.checkpoint as ocp  # half a second that no one waits for without checkpoints

        options = ocp.CheckpointManagerOptions(
            max_to_keep=NUM_KEPT,
            create=True,
            enable_async_checkpointing=False,
        )
        self.identity = dict(identity)
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
          tree: Arrays.
          notes: What is to be saved beside them, as JSON holds it.
        """
        import orbax.checkpoint as ocp

        leaves = _leaves(tree)
        about = {"identity": self.identity, "digest": _digest(leaves), "notes": dict(notes)}
        items = {"arrays": ocp.args.StandardSave(leaves), "about": ocp.args.JsonSave(about)}
        self._manager.save(step, args=ocp.args.Composite(**items))

    def restore(self, like: Any) -> Restored | None:
        """Reads the newest checkpoint that is intact; None if there is none.

        A damaged one is said in a warning, removed, and the one before it is taken.

        Args:
          like: A pytree of arrays of the structure, shapes and types that were saved.

        Raises:
          ValueError: If the checkpoint is of another training; the message has the fields.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                about = self._read_about(step)
                self._check_identity(about["identity"])
                tree = self._read_tree(step, like, about["digest"])
                return Restored(step, tree, about["notes"])
            except _OtherTraining as error:
                raise ValueError(str(error)) from None
            except Exception as error:  # a damaged file fails anywhere in two libraries
                self.discard(step, str(error) or type(error).__name__)
        return None

    def discard(self, step: int, reason: str) -> None:
        """Removes a checkpoint that cannot be used, with a warning."""
        reason = " ".join(reason.split())[:200]
        _LOG.warning("checkpoint %d is damaged and left out (%s)", step, reason)
        self._manager.delete(step)

    def _read_about(self, step: int) -> dict[str, Any]:
        import orbax.checkpoint as ocp

        restored = self._manager.restore(step, args=_composite(about=ocp.args.JsonRestore()))
        return restored["about"]

    def _check_identity(self, stored: Mapping[str, Any]) -> None:
        wanted = self.identity
        found = [
            f"{name} is {stored.get(name, 'absent')!r} there and {wanted.get(name, 'absent')!r} "
            "here"
            for name in {**stored, **wanted}
            if stored.get(name, "absent") != wanted.get(name, "absent")
        ]
        if found:
            raise _OtherTraining(
                f"{self._manager.directory.name} holds checkpoints of another configuration: "
                f"{', '.join(found)}; give the training a folder of its own"
            )

    def _read_tree(self, step: int, like: Any, digest: str) -> Any:
        import orbax.checkpoint as ocp

        wanted = ocp.args.StandardRestore(_leaves(like))
        leaves = self._manager.restore(step, args=_composite(arrays=wanted))["arrays"]
        if _digest(leaves) != digest:
            raise ValueError("its arrays are not those that were saved")
        structure = jax.tree.structure(like)
        old = [np.asarray(leaf) for leaf in jax.tree.leaves(like)]
        new = [leaves.get(_name(i), leaf) for i, leaf in enumerate(old)]
        return jax.tree.unflatten(structure, new)


class _OtherTraining(Exception):
    """The checkpoint is not of this training."""


def _is_not_orbax(record: logging.LogRecord) -> bool:
    """Keeps back what orbax logs of its own work: what matters of it is raised."""
    return "orbax" not in record.pathname


def _composite(**items: Any) -> "ocp.args.Composite":
    import orbax.checkpoint as ocp

    return ocp.args.Composite(**items)


def _name(index: int) -> str:
    return f"{index:04d}"


def _leaves(tree: Any) -> dict[str, np.ndarray]:
    """The leaves by number, without those that hold nothing, which orbax does not take."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(jax.device_get(tree))]
    return {_name(i): leaf for i, leaf in enumerate(leaves) if leaf.size}


def _digest(leaves: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(leaves):
        leaf = np.asarray(leaves[name])
        digest.update(f"{name} {leaf.dtype} {leaf.shape} ".encode() + leaf.tobytes())
    return digest.hexdigest()
