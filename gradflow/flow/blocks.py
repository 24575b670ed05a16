"""The blocks of a carry by name: the hidden state, a field, or everything."""

import contextlib
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gradflow.cell import Carry, Cell, whole_carry
from gradflow.flow.real_carry import as_real
from gradflow.flow.trace import Rows, Select, Trace
from gradflow.numerics.scaling import Scaled, rescale
from gradflow.unroll import check_is_cell


def block(cell: Cell, name: str) -> Select:
    """Returns the part of the carry with a name, as a selection.

    Args:
      cell: The cell.
      name: ``"h"`` is the cell's hidden state, ``"carry"`` everything, and any other name a
        field of the carry: ``"c"``, ``"1.c"`` for field c of the second layer of a stack, or
        ``"C,n"`` for several fields.

    Raises:
      TypeError: If the cell is none.
      ValueError: If the carry has no such field.
    """
    check_is_cell(cell)
    cell = as_real(cell)
    if name == "h":
        return lambda carry: whole_carry(cell.hidden(carry))  # h may be a matrix or an image
    if name == "carry":
        return whole_carry

    def field(carry: Carry, path: str) -> Carry:
        for part in path.split("."):
            carry = carry[int(part)] if part.isdigit() else getattr(carry, part)
        return carry

    def select(carry: Carry) -> Float[Array, " block"]:
        return whole_carry([field(carry, path) for path in name.split(",")])

    try:
        jax.eval_shape(select, jax.eval_shape(cell.initial_carry))
    except (AttributeError, IndexError, TypeError):
        known = ", ".join(dict.fromkeys(["h", "carry", *field_names(cell)]))
        raise ValueError(
            f"Expected the name of a block of the carry, one of {known}, got {name!r}. "
            "Give one of these as source or target."
        ) from None
    return select


def coordinates(cell: Cell, name: str, role: str = "source") -> Select:
    """Returns a block by which can be differentiated: one that is made of entries of the carry.

    h may be any differentiable function of the carry, such as relu(v), and ∂h_T/∂s_k is defined for
    each. A derivative by h_k is defined where h_k is a part of the carry, the rest of which is held
    fixed. Of h = relu(v) it is not: another h_k has no v_k, or many.

    Args:
      cell: The cell.
      name: As in `block`.
      role: Of what the block is the source, or the target, for the error.

    Raises:
      TypeError: If the cell is none.
      ValueError: If the carry has no such block, or h is not a selection of its entries.
    """
    select, cell = block(cell, name), as_real(cell)
    if name == "h" and not _is_selection(cell):
        known = " or ".join(repr(one) for one in ["carry", *field_names(cell)])
        raise ValueError(
            f"Expected a {role} that is made of entries of the carry, got 'h', which this cell "
            f"computes from them. Give {role}={known}."
        )
    return select


def field_names(cell: Cell) -> list[str]:
    """Returns the names of the fields of a carry, as `block` takes them."""
    paths = jax.tree_util.tree_leaves_with_path(jax.eval_shape(as_real(cell).initial_carry))
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths]
    return list(dict.fromkeys(filter(None, names)))


def selected_entries(cell: Cell, name: str) -> Int[np.ndarray, " block"] | None:
    """Returns the places of a block's entries in the flat carry.

    None where the block is computed from entries instead of being made of them, and where h closes
    over a traced value, so that this is unknown.
    """
    with contextlib.suppress(jax.errors.JAXTypeError):
        return _selected(as_real(cell).hidden if name == "h" else block(cell, name), *_form(cell))
    return None


def _is_selection(cell: Cell) -> bool:
    """Whether h is made of different entries of the carry; True where that cannot be computed."""
    try:
        return cell.hidden is whole_carry or _selected(cell.hidden, *_form(cell)) is not None
    except jax.errors.JAXTypeError:  # hidden closes over a traced value
        return True


def _form(cell: Cell) -> tuple[Any, tuple[tuple[int, ...], ...]]:
    leaves, structure = jax.tree.flatten(jax.eval_shape(as_real(cell).initial_carry))
    return structure, tuple(leaf.shape for leaf in leaves)


@lru_cache(maxsize=256)
def _selected(
    select: Callable[[Carry], Array], structure: Any, shapes: tuple[tuple[int, ...], ...]
) -> Int[np.ndarray, " block"] | None:
    """The places of the entries that a function selects; None where it computes something."""
    size = sum(math.prod(shape) for shape in shapes)

    def at(values: np.ndarray) -> np.ndarray:
        ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1]
        parts = zip(np.split(values, ends), shapes, strict=True)
        leaves = [jnp.asarray(part.reshape(shape)) for part, shape in parts]
        return np.ravel(select(jax.tree.unflatten(structure, leaves)))

    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        places = at(np.arange(float(size)))
        probe = -1.5 - np.arange(float(size))  # a ReLU would be seen where it is not negative
        index = places.astype(int)
        is_one = (index == places) & (0 <= index) & (index < size)
        unique = len(set(index.tolist())) == len(index)
        selects = bool(is_one.all()) and unique and bool((at(probe) == probe[index]).all())
    return index if selects else None


class Blocks(NamedTuple):
    """The source and the target of ∂target_t/∂source_k, by name."""

    source: str
    target: str

    def check(self, cell: Cell, *, every_step: bool = False) -> "Blocks":
        """Returns the same if the carry has both.

        Args:
          cell: The cell.
          every_step: Whether the target is that of every step, and not of the last one alone.

        Raises:
          ValueError: If it has not, or one of them is not made of entries of the carry where this
            is needed.
        """
        coordinates(cell, self.source)
        if every_step:
            coordinates(cell, self.target, "target")
        else:
            block(cell, self.target)
        return self

    def rows(self, trace: Trace) -> Rows:
        """Returns ∂target_t/∂s_t, the rows that a product starts from."""
        return trace.unit_rows(block(trace.cell, self.target))

    def cut(self, trace: Trace, rows: Rows) -> Float[Array, "rows columns"]:
        """Returns rows · ∂s_k/∂source_k: the source's columns of a product."""
        return jax.vmap(block(trace.cell, self.source))(rows)

    def cut_scaled(self, trace: Trace, product: Scaled) -> Scaled:
        """Returns the block of a product, rescaled.

        It may be far smaller than the rest of the carry, and its squares smaller still.
        """
        return rescale(self.cut(trace, product.value), product.exponent)
