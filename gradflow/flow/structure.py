"""The blocks of a carry that do not influence each other, found from the program of the step.

Most modern recurrences are not dense: the Jacobian of their step is diagonal, has blocks of two, or
is one small matrix for each row of a matrix-valued state. Products of such Jacobians have the same
blocks, so that a measurement on each block gives the same numbers as one on the whole carry, for
the sum of the blocks' cubes instead of the cube of their sum.
"""

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gradflow.cell import Cell, Params
from gradflow.flow.blocks import Blocks, selected_entries
from gradflow.flow.blocks import block as selection_of
from gradflow.flow.step_pattern import Parts, Step, parts_of
from gradflow.flow.trace import Trace, trace_of
from gradflow.numerics.scaling import Scaled, rescale

MOST_GROUPS = 4
"""Blocks of at most so many different kinds are measured apart: each kind is one more program."""

LEAST_SHARED = 3
"""Blocks of fewer entries are measured one by one: to find that they are equal costs more."""


class Places(NamedTuple):
    """The source and the target within a block, as `Blocks` is for a carry.

    Attributes:
      source: The places of the source's entries among those of the block.
      target: Those of the target's.
    """

    source: tuple[int, ...]
    target: tuple[int, ...]

    def rows(self, trace: Trace) -> Float[Array, "rows columns"]:
        """Returns ∂target_t/∂s_t, the rows that a product starts from."""
        return jnp.eye(trace.last.size, dtype=trace.last.dtype)[np.array(self.target)]

    def cut(self, trace: Trace, rows: Array) -> Float[Array, "rows columns"]:
        """Returns the source's columns of a product."""
        return rows[:, np.array(self.source)]

    def cut_scaled(self, trace: Trace, product: Scaled) -> Scaled:
        """Returns the block of a product, rescaled."""
        return rescale(self.cut(trace, product.value), product.exponent)


@dataclass(frozen=True, eq=False)
class Group:
    """Blocks of one size, with the source and the target at the same places.

    Attributes:
      entries: The places of their entries in the flat carry. The blocks of one class, along the
        second axis, have one Jacobian in common.
      places: The source and the target within a block.
    """

    entries: Int[np.ndarray, "classes members size"]
    places: Places

    @property
    def rounds(self) -> int:
        """Rows over the carry that a Jacobian takes: each member of a class has another one."""
        _, members, size = self.entries.shape
        return -(-size // members)


@dataclass(frozen=True, eq=False)
class Structure:
    """How a carry falls into blocks.

    Attributes:
      size: The number of entries of the carry.
      groups: The blocks, those without a source or a target left out.
      num_values: Entries of the smaller of source and target: the number of singular values.
    """

    size: int
    groups: tuple[Group, ...]
    num_values: int

    def unshared(self) -> "Structure":
        """Returns the same with every block in a class of its own."""
        groups = [
            Group(group.entries.reshape(-1, 1, group.entries.shape[2]), group.places)
            for group in self.groups
        ]
        return Structure(self.size, tuple(groups), self.num_values)


def structure_of(trace: Trace, blocks: Blocks | None) -> Structure | None:
    """Finds how the carry falls into blocks; cached for each cell and shapes.

    It depends on shapes alone, so that it holds for all parameters. What is found in the program
    is verified by derivatives at random points, in case the cell has derivatives of its own.

    Args:
      trace: A trajectory.
      blocks: The source and the target; None for all entries that the next step reads.

    Returns:
      The structure; None where the carry is to be measured as a whole: it does not fall into
      blocks, or into more than `MOST_GROUPS` kinds of them, or the target has entries that no
      step reads.
    """
    x = jax.tree.map(lambda leaf: leaf[0], trace.inputs())
    return _structure(blocks, Step.of(trace.cell, trace.params, trace.last, x))


def block_sizes(
    cell: Cell, params: Params, inputs: Float[Array, "steps input"], *, block: str = "carry"
) -> dict[int, int]:
    """Counts the blocks that a part of the carry falls into, by their size.

    ::

        flow.block_sizes(lru(3, 8), params, inputs)    # {2: 8}: eight blocks of two entries
        flow.block_sizes(lstm(3, 8), params, inputs)   # {16: 1}: none that are independent

    Args:
      cell: The cell.
      params: Its parameters.
      inputs: x_1 ... x_T of one sequence; only their shape matters.
      block: The part, by name: ``"carry"``, or fields such as ``"S"``.

    Raises:
      ValueError: If the carry has no such part, or arguments do not fit the cell.
    """
    trace = trace_of(cell, params, inputs[:1])
    found = structure_of(trace, Blocks(block, block).check(cell))
    if found is None:
        return {jax.eval_shape(selection_of(cell, block), trace.last).size: 1}
    counts: dict[int, int] = defaultdict(int)
    for group in found.groups:
        classes, members, size = group.entries.shape
        counts[size] += classes * members
    return dict(counts)


@lru_cache(maxsize=256)
def _structure(blocks: Blocks | None, step: Step) -> Structure | None:
    """`structure_of` a cell by the shapes of its arguments."""
    found = parts_of(step)
    if found is None:
        return None
    source = target = np.flatnonzero(found.read)
    if blocks is not None:
        ends = [selected_entries(step.cell, name) for name in blocks]
        if ends[0] is None or ends[1] is None or not found.read[ends[1]].all():
            return None
        source, target = ends[0], ends[1]
    groups = [
        Group(np.stack(same), places)
        for (*_, places), same in _classes(found, source, target).items()
    ]
    if not 0 < len(groups) <= MOST_GROUPS:
        return None
    return Structure(len(found.read), tuple(groups), min(len(source), len(target)))


def _classes(
    found: Parts, source: np.ndarray, target: np.ndarray
) -> dict[tuple, list[Int[np.ndarray, "members size"]]]:
    """Finds the blocks that have one Jacobian in common, by their number, size and places.

    Blocks without an entry of the source or of the target are left out.
    """
    by_value: dict[tuple, list[np.ndarray]] = defaultdict(list)
    scale = np.abs(found.pulled).max(axis=1, keepdims=True)
    digits = 9 if found.pulled.dtype == np.float64 else 4
    values = np.round(found.pulled / np.where(scale > 0, scale, 1), digits)
    for number, part in enumerate(found.parts):
        places = Places(*(tuple(np.isin(part, b).nonzero()[0].tolist()) for b in (source, target)))
        if places.source and places.target:
            own = values[:, part].tobytes() if len(part) >= LEAST_SHARED else number
            by_value[len(part), places, own].append(part)
    kinds: dict[tuple, list[np.ndarray]] = defaultdict(list)
    for (size, places, _), members in by_value.items():
        kinds[len(members), size, places].append(np.stack(members))
    return kinds
