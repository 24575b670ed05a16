"""What every measurement stands on: the trajectory, its step Jacobians at work, and scaling.

No measurement forms J_t. Rows go through the step's VJP and columns through its JVP, all of
them in one matrix product a weight; both keep the carry's own pytree, with the rows (columns)
along a leading axis of every leaf.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from gradflow.cell import Carry, Cell, Params, whole_carry
from gradflow.flow.exact_slopes import exact_slopes
from gradflow.unroll import Lengths, Mask, check_inputs, mask_cell, unroll

Rows = PyTree[Float[Array, "_ ..."]]
"""Row vectors over the carry: the carry's pytree with a leading axis."""

Select = Callable[[Carry], Float[Array, " block"]]
"""Picks the entries of a block out of a carry."""


class Steps(NamedTuple):
    """A trajectory, ready to be linearised: step t goes from ``before[t-1]`` with ``xs[t-1]``.

    Attributes:
      cell: The cell; with padding, the one whose padded steps copy the carry. Its step has
        `exact_slopes`.
      params: Its parameters.
      before: s_0 ... s_{T-1}, the carry's pytree with a leading axis T.
      last: s_T.
      xs: What the cell takes at each step.
    """

    cell: Cell
    params: Params
    before: Carry
    last: Carry
    xs: Any

    @property
    def num_steps(self) -> int:
        """T."""
        return len(jax.tree.leaves(self.xs)[0])

    def at(self, index: Int[Array, ""]) -> tuple[Carry, Any]:
        """The carry before, and the input of, step index + 1."""
        return jax.tree.map(lambda leaf: leaf[index], (self.before, self.xs))


def trajectory(
    cell: Cell,
    params: Params,
    inputs: Float[Array, "steps input"],
    *,
    carry: Carry | None = None,
    lengths: Lengths | None = None,
    mask: Mask | None = None,
) -> Steps:
    """Runs the cell over one sequence and keeps what the measurements linearise.

    Raises:
      ValueError: If the inputs are a batch (`jax.vmap` the measurement over it), or no step.
    """
    inputs = check_inputs(inputs)
    if inputs.ndim != 2:
        raise ValueError(
            f"one sequence of inputs, of shape (T, input), is expected, got shape {inputs.shape}; "
            "for a batch, jax.vmap the measurement over its axis"
        )
    if not len(inputs):
        raise ValueError("inputs of at least one step are expected, got none: T = 0")
    carries = unroll(cell, params, inputs, carry=carry, lengths=lengths, mask=mask).carries
    masked, xs = mask_cell(cell, inputs, lengths, mask)
    before = jax.tree.map(lambda leaf: leaf[:-1], carries)
    last = jax.tree.map(lambda leaf: leaf[-1], carries)
    return Steps(with_exact_slopes(masked), params, before, last, xs)


def with_exact_slopes(cell: Cell) -> Cell:
    """The cell to be linearised: saturated units have slopes that are not rounded to zero.

    The trajectory comes from the cell itself, as in training.
    """
    return cell._replace(step=exact_slopes(cell.step))


def pull_rows(steps: Steps, index: Int[Array, ""], rows: Rows) -> Rows:
    """rows · J_t with t = index + 1: one step back in time, for any number of rows at once."""
    carry, x = steps.at(index)
    _, vjp = jax.vjp(lambda s: steps.cell.step(steps.params, s, x)[0], carry)
    return jax.vmap(lambda row: vjp(row)[0])(rows)


def push_columns(steps: Steps, index: Int[Array, ""], columns: Rows) -> Rows:
    """J_t · columns with t = index + 1: one step on in time, for any number of columns."""
    carry, x = steps.at(index)
    _, jvp = jax.linearize(lambda s: steps.cell.step(steps.params, s, x)[0], carry)
    return jax.vmap(jvp)(columns)


def with_room(rows: Rows) -> tuple[Rows, int]:
    """2^shift · rows, and shift, for rows with entries near 1 that are to go through a step.

    Where the step is a product of small factors, such as 1e-155 · 1e-155, the product with a row
    near 1 is below the normal numbers and the hardware flushes it to 0. A row near 2^341 in
    float64, or 2^42 in float32, leaves room for it.
    """
    dtype = jnp.result_type(*jax.tree.leaves(rows))
    shift = jnp.finfo(dtype).maxexp // 3
    return jax.tree.map(lambda leaf: leaf * 2.0**shift, rows), shift


def pull_scaled(
    steps: Steps, index: Int[Array, ""], rows: Rows, exponent: Int[Array, ""]
) -> tuple[Rows, Int[Array, ""]]:
    """2^exponent · rows · J_t, rescaled, where neither the factors nor their product underflow.

    Args:
      steps: The steps.
      index: t - 1.
      rows: Rows with entries near 1, as `rescale` leaves them.
      exponent: Theirs.
    """
    rows, shift = with_room(rows)
    return rescale(pull_rows(steps, index, rows), exponent - shift)


def rescale(rows: Rows, exponent: Int[Array, ""]) -> tuple[Rows, Int[Array, ""]]:
    """Brings 2^exponent · rows to a largest entry between 1/2 and 1, without any rounding.

    The scale is a power of two held as an integer, so that neither a product of a million
    steps nor one in float32 loses anything by it.
    """
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(rows)]))
    largest = jax.lax.stop_gradient(jnp.where(jnp.isfinite(largest), largest, 1))
    _, shift = jnp.frexp(largest)
    factor = jnp.ldexp(jnp.ones((), largest.dtype), -shift)
    return jax.tree.map(lambda leaf: leaf * factor, rows), exponent + shift


def log_scaled(value: Float[Array, "*n"], exponent: Int[Array, "*#n"]) -> Float[Array, "*n"]:
    """log(2^exponent · value); -inf for an exact zero."""
    return jnp.log(value) + exponent * math.log(2)


def block(cell: Cell, name: str) -> Select:
    """The part of the carry with a name, as a selection.

    Args:
      cell: The cell.
      name: ``"h"`` is what the cell calls hidden, ``"carry"`` everything, and any other name a
        field of the carry: ``"c"``, or ``"1.c"`` for field c of the second layer of a stack.

    Raises:
      ValueError: If the carry has no such field.
    """
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
        raise ValueError(
            f"the carry has no block {name!r}; its blocks are "
            f"{', '.join(dict.fromkeys(['h', 'carry', *filter(None, fields)]))}"
        ) from None
    return select


def unit_rows(steps: Steps, select: Select) -> Rows:
    """The rows of the identity on a block's entries: ∂block(s)/∂s."""
    size = jax.eval_shape(select, steps.last).shape[0]
    _, vjp = jax.vjp(select, steps.last)
    dtype = jnp.result_type(*jax.tree.leaves(steps.last))
    return jax.vmap(lambda row: vjp(row)[0])(jnp.eye(size, dtype=dtype))
