"""The blocks of a carry by name: the hidden state, a field, or everything."""

from typing import NamedTuple

import jax
from jaxtyping import Array, Float

from gradflow.cell import Carry, Cell, whole_carry
from gradflow.flow.trace import Rows, Select, Trace
from gradflow.numerics.scaling import Scaled, rescale
from gradflow.unroll import check_is_cell


def block(cell: Cell, name: str) -> Select:
    """Returns the part of the carry with a name, as a selection.

    Args:
      cell: The cell.
      name: ``"h"`` is the cell's hidden state, ``"carry"`` everything, and any other name a
        field of the carry: ``"c"``, or ``"1.c"`` for field c of the second layer of a stack.

    Raises:
      TypeError: If the cell is none.
      ValueError: If the carry has no such field.
    """
    check_is_cell(cell)
    if name == "h":
        return cell.hidden
    if name == "carry":
        return whole_carry

    def select(carry: Carry) -> Float[Array, " block"]:
        for part in name.split("."):
            carry = carry[int(part)] if part.isdigit() else getattr(carry, part)
        return whole_carry(carry)

    carry = jax.eval_shape(cell.initial_carry)
    try:
        jax.eval_shape(select, carry)
    except (AttributeError, IndexError, TypeError):
        paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(carry)]
        fields = [jax.tree_util.keystr(path, simple=True, separator=".") for path in paths]
        known = ", ".join(dict.fromkeys(["h", "carry", *filter(None, fields)]))
        raise ValueError(
            f"Expected the name of a block of the carry, one of {known}, got {name!r}. "
            "Give one of these as source or target."
        ) from None
    return select


class Blocks(NamedTuple):
    """The source and the target of ∂target_t/∂source_k, by name."""

    source: str
    target: str

    def check(self, cell: Cell) -> "Blocks":
        """Returns the same if the carry has both.

        Raises:
          ValueError: If it has not.
        """
        for name in self:
            block(cell, name)
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
