"""Matrices that are distributed over devices by their rows, or by their columns.

A function that calls these says how a matrix is to be laid out, and the compiler inserts the
communication. They have no effect but within `by_rows_over`, which makes the mesh of devices.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, PyTree

_ROWS = "rows"


@contextlib.contextmanager
def by_rows_over(devices: Sequence[Any]) -> Iterator[None]:
    """Distributes over devices, within the block, the matrices of `by_rows` and `by_columns`.

    Raises:
      ValueError: If there is no device, or the block is inside of a `jax.jit` or `jax.grad`.
    """
    if not devices:
        raise ValueError("Expected at least one device, got none. Remove devices= to use all.")
    try:
        context = jax.set_mesh(Mesh(np.array(devices), (_ROWS,)))
    except ValueError:
        raise ValueError(
            "Expected a call outside of jax.jit, jax.vmap and jax.grad to distribute rows over "
            "devices, got one inside. Distribute the transformed function instead, as in "
            "over_devices(jax.jit(function))."
        ) from None
    with context:
        yield


def is_distributed() -> bool:
    """Returns whether matrices are distributed here."""
    return _ROWS in jax.sharding.get_abstract_mesh().axis_names


def by_rows(rows: PyTree[Float[Array, "rows ..."]]) -> PyTree[Float[Array, "rows ..."]]:
    """Distributes the leading axis of each leaf, so that a device has an equal number of rows.

    A product with a matrix on their right then needs no communication.
    """
    return _laid_out(rows, PartitionSpec(_ROWS))


def by_columns(matrix: Float[Array, "rows columns"]) -> Float[Array, "rows columns"]:
    """Distributes the second axis, so that a device has all rows of an equal number of columns.

    Inner products of the rows then need one sum over the devices, and no rows are exchanged.
    """
    return _laid_out(matrix, PartitionSpec(None, _ROWS))


def _laid_out(tree: PyTree, spec: PartitionSpec) -> PyTree:
    if not is_distributed():
        return tree
    return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, spec), tree)
