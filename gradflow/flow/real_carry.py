"""Cells with a complex carry as cells with a real one, which derivatives are defined for.

A complex array z of the carry becomes the pair of its real and imaginary part along a leading axis.
A step is then a function of real numbers, whose Jacobian exists whether or not it is holomorphic;
norms and singular values are those of this Jacobian on (Re z, Im z).
"""

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradflow.cell import Carry, Cell


@lru_cache(maxsize=256)
def as_real(cell: Cell) -> Cell:
    """Returns a cell on the real and imaginary parts; the cell itself where its carry is real."""
    like = jax.eval_shape(cell.initial_carry)
    if not any(map(_is_complex, jax.tree.leaves(like))):
        return cell

    def restore(carry: Carry) -> Carry:
        def one(leaf: Array, of: Any) -> Array:
            return jax.lax.complex(leaf[0], leaf[1]) if _is_complex(of) else leaf

        return jax.tree.map(one, carry, like)

    def step(params: Any, carry: Carry, x: Array) -> tuple[Carry, Array]:
        after, h = cell.step(params, restore(carry), x)
        return real_parts(after), real_parts(h)

    gates = cell.gates
    return cell._replace(
        step=step,
        initial_carry=lambda: real_parts(cell.initial_carry()),
        hidden=lambda carry: real_parts(cell.hidden(restore(carry))),
        gates=None if gates is None else lambda p, carry, x: gates(p, restore(carry), x),
    )


def real_parts(tree: Any) -> Any:
    """Returns complex leaves as the pair of their real and imaginary part, and others as is."""
    return jax.tree.map(
        lambda leaf: jnp.stack([leaf.real, leaf.imag]) if _is_complex(leaf) else leaf, tree
    )


def _is_complex(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.complexfloating)
