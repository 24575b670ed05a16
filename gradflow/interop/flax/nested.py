"""Nested dictionaries of parameters, as Flax and Haiku have them: walks, and arrays in them."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from gradflow.checks import shorten

Tree = Mapping[str, Any]

_SKIPPED = ("opt_state", "optimizer", "batch_stats")
"""Names of trees whose leaves are named like parameters and are none."""


def plain(tree: Any) -> Any:
    """Returns a tree as nested dictionaries of NumPy arrays.

    A level ``value``, which a saved state of Flax NNX has around each array, is removed.
    """
    if isinstance(tree, Mapping):
        if set(tree) == {"value"} and not isinstance(tree["value"], Mapping):
            return plain(tree["value"])
        return {str(key): plain(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return {str(index): plain(value) for index, value in enumerate(tree)}
    return tree


def nodes(tree: Tree, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Tree]]:
    """Yields every dictionary in a tree with its path, without what are no parameters.

    Where a dictionary has ``params``, only these are followed, and the name is left out.
    """
    if isinstance(tree.get("params"), Mapping):
        yield from nodes(tree["params"], path)
        return
    yield path, tree
    for name, value in tree.items():
        if isinstance(value, Mapping) and name not in _SKIPPED:
            yield from nodes(value, (*path, name))


def array(tree: Tree, *path: str) -> np.ndarray | None:
    """Returns the array of numbers at a path in float64; None if there is none."""
    value: Any = tree
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    if value is None:
        return None
    try:
        found = np.asarray(value)
        if found.dtype.kind in "OSUc":
            raise TypeError(f"the type {found.dtype}")
        with np.errstate(all="ignore"):  # NumPy warns of some NaN, which damaged files have
            return found.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Expected an array of real numbers at {'/'.join(path)!r}, got {shorten(error)}. Pass "
            "the parameters alone, as arrays."
        ) from None


def needed(tree: Tree, *path: str) -> np.ndarray:
    """Returns the array of numbers at a path in float64, which has to be there."""
    found = array(tree, *path)
    if found is None:
        raise ValueError(
            f"Expected an array at {'/'.join(path)!r} among the parameters of a recurrent cell, "
            "got none. The parameters are incomplete: save them again."
        )
    return found


def num_gates(tree: Tree, name: str) -> int:
    """Returns the number of gates of a joined matrix (hidden, gates * hidden); 0 if it is none."""
    kernel = array(tree, name, "kernel")
    if kernel is None or kernel.ndim != 2 or not len(kernel) or kernel.shape[1] % len(kernel):
        return 0
    return kernel.shape[1] // len(kernel)
