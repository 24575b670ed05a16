"""Files of Flax: msgpack, and checkpoints of Orbax, both read as plain arrays."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gradflow.interop.archives import undamaged
from gradflow.interop.flax.nets import from_tree
from gradflow.interop.loading import Options
from gradflow.interop.net import Net

FACTOR = 16
"""Largest size of the arrays of a checkpoint in memory, over that of its files."""

_SPARE = 2**20


def read_msgpack(path: Path, options: Options) -> Net:
    """Reads the recurrent cells of a file that ``flax.serialization.to_bytes`` wrote."""
    from flax import serialization

    # Damaged bytes raise whatever NumPy and msgpack make of them.
    with undamaged(f"a msgpack file of Flax at {str(path)!r}", "Copy it again."):
        tree = serialization.msgpack_restore(path.read_bytes())
    return _from_restored(tree, path, options)


def read_orbax(path: Path, options: Options) -> Net:
    """Reads the recurrent cells of a checkpoint of Orbax, a folder."""
    from orbax import checkpoint

    folder = _item(path.resolve())
    # Orbax and TensorStore raise many types on damaged folders.
    with undamaged(f"a checkpoint of Orbax at {str(path)!r}", "Copy it again."):
        with checkpoint.PyTreeCheckpointer() as reader:
            shapes = reader.metadata(folder).item_metadata
            _check_size(folder, jax.tree.leaves(shapes))
            as_numpy = checkpoint.RestoreArgs(restore_type=np.ndarray)
            tree = reader.restore(folder, restore_args=jax.tree.map(lambda _: as_numpy, shapes))
    return _from_restored(tree, path, options)


def _item(path: Path) -> Path:
    """The folder of the arrays: a CheckpointManager keeps those of an item in a folder inside."""
    for name in (".", "default", "params", "state", "model"):
        if (path / name / "_METADATA").exists():
            return path / name
    return path


def _check_size(folder: Path, leaves: list[Any]) -> None:
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    wanted = sum(
        math.prod(map(int, getattr(leaf, "shape", None) or ()))
        * np.dtype(getattr(leaf, "dtype", None) or np.int8).itemsize
        for leaf in leaves
    )
    if wanted > FACTOR * size + _SPARE:
        raise ValueError(
            f"Expected arrays of the size of the files in {str(folder)!r}, {size} bytes, but they "
            f"would take {wanted} in memory. The checkpoint is incomplete or damaged: copy it "
            "again."
        )


def _from_restored(tree: Any, path: Path, options: Options) -> Net:
    if not isinstance(tree, Mapping):
        raise ValueError(
            f"Expected nested dictionaries of parameters in {str(path)!r}, got "
            f"{type(tree).__name__}. Save the variables of the model."
        )
    try:
        return from_tree(tree, options)
    except RecursionError:
        raise ValueError(
            f"Expected the parameters of a model in {str(path)!r}, got dictionaries that are "
            "nested too deeply. The file is damaged: copy it again."
        ) from None
