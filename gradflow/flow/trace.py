"""The trajectory of a cell and its linearised steps, from which every measurement starts.

No measurement forms J_t. Rows go through the step's VJP and columns through its JVP, all of
them in one matrix product a weight (many rows of a gated cell in fewer, by
`gradflow.unroll.planner.rows`); both keep the carry's own pytree, with rows (columns) along a
leading axis of every leaf. A product of many J_t is `Scaled`: entries near 1 and a power of two.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree

from gradflow.cell import Carry, Cell, Params, whole_carry
from gradflow.flow.closed_over import open_cell
from gradflow.flow.interned import interned
from gradflow.flow.real_carry import as_real, real_parts
from gradflow.numerics.distributed import by_rows, is_distributed
from gradflow.numerics.exact_slopes import exact_slopes
from gradflow.numerics.scaling import Scaled, rescale, room, with_room
from gradflow.padding import copying_step, fill_padding
from gradflow.unroll import (
    Lengths,
    Mask,
    check_is_cell,
    check_sequence,
    check_step,
    start,
    unroll,
    valid_steps,
)
from gradflow.unroll.planner import plan_for_rows, pull_by_plan

Rows = PyTree[Float[Array, "_ ..."]]
"""Row vectors over the carry: the carry's pytree with a leading axis."""

Select = Callable[[Carry], Float[Array, " block"]]
"""Picks the entries of a block out of a carry."""

_P = ParamSpec("_P")
_R = TypeVar("_R")


def compiled(*static: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Returns a decorator: `jax.jit` with static arguments, and full precision of products.

    On accelerators the default precision of a float32 product is that of bfloat16 or TF32, about
    1e-3, which a product of many steps would multiply up.
    """

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        @functools.partial(jax.jit, static_argnames=static)
        @functools.wraps(function)
        def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            with jax.default_matmul_precision("highest"):
                return function(*args, **kwargs)

        return run

    return decorate


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Trace:
    """A trajectory, ready to be linearised: step t goes from ``before[t-1]`` with ``xs[t-1]``.

    A pytree, so that it can be an argument of compiled functions; the cell is a part of its
    structure.

    Attributes:
      cell: The cell.
      params: Its parameters.
      before: s_0 ... s_{T-1}, the carry's pytree with a leading axis T.
      last: s_T.
      xs: The inputs x_1 ... x_T; with padding, the pair of them and of whether each step is real.
    """

    cell: Cell = field(metadata={"static": True})
    params: Params
    before: Carry
    last: Carry
    xs: Any

    @property
    def num_steps(self) -> int:
        """T."""
        return len(jax.tree.leaves(self.xs)[0])

    @property
    def mask(self) -> Bool[Array, " steps"] | None:
        """Which steps are real, or None if all are."""
        return self.xs[1] if isinstance(self.xs, tuple) else None

    def inputs(self) -> Float[Array, "steps input"]:
        """Returns x_1 ... x_T; at a padded step that of a real one."""
        return self.xs[0] if isinstance(self.xs, tuple) else self.xs

    def after(self) -> Carry:
        """Returns s_1 ... s_T along a leading axis."""
        return jax.tree.map(
            lambda before, last: jnp.concatenate([before, last[None]])[1:], self.before, self.last
        )

    def outputs(self) -> Float[Array, " steps *hidden"]:
        """Returns h_1 ... h_T."""
        return jax.vmap(self.cell.hidden)(self.after())

    def step(self, params: Params, s: Carry, x: Any) -> Carry:
        """Computes s_t from s_{t-1}, to be differentiated.

        The trajectory comes from the cell's own step, as in training; the derivatives are those of
        `exact_slopes`, which saturation does not round to zero.
        """
        return exact_slopes(self.primal_step())(params, s, x)[0]

    def primal_step(self) -> Callable[..., tuple[Carry, Array]]:
        """Returns the step as it runs, with a mask for (x_t, is_real): a padded one copies."""
        return self.cell.step if self.mask is None else copying_step(self.cell)

    def at(self, index: Int[Array, ""]) -> tuple[Callable[[Carry], Carry], Carry]:
        """Returns step index + 1 as a function of the carry before it, and that carry."""
        s, x = jax.tree.map(lambda leaf: leaf[index], (self.before, self.xs))
        return lambda s: self.step(self.params, s, x), s

    def pull(self, index: Int[Array, ""], rows: Scaled) -> Scaled:
        """Computes rows · J_t with t = index + 1: one step back in time, for any number of rows."""
        s, x = jax.tree.map(lambda leaf: leaf[index], (self.before, self.xs))
        num_rows = len(jax.tree.leaves(rows.value)[0])
        plan = plan_for_rows(self.primal_step(), self.params, s, x, num_rows)
        if plan is None or is_distributed():  # every device would form the combined matrices
            return pull_through(*self.at(index), rows)
        shift = room(rows.value)
        pulled = pull_by_plan(plan, self.params, s, x, rows.value, 2.0**shift)
        return rescale(pulled, rows.exponent - shift)

    def pull_rows(self, index: Int[Array, ""], rows: Rows) -> Rows:
        """Computes the same without any rescaling."""
        return _pull(*self.at(index), rows)

    def push_columns(self, index: Int[Array, ""], columns: Rows) -> Rows:
        """Computes J_t · columns with t = index + 1: one step on in time, without rescaling."""
        function, s = self.at(index)
        return by_rows(jax.vmap(jax.linearize(function, s)[1])(columns))

    def unit_rows(self, select: Select) -> Rows:
        """Returns the rows of the identity on a block's entries: ∂block(s)/∂s."""
        size = jax.eval_shape(select, self.last).shape[0]
        dtype = jnp.result_type(*jax.tree.leaves(self.last))
        return _pull(select, self.last, by_rows(jnp.eye(size, dtype=dtype)))

    def as_rows(self, matrix: Float[Array, "rows carry"]) -> Rows:
        """Returns the rows of a matrix as the carry's own pytree."""
        return jax.vmap(ravel_pytree(self.last)[1])(matrix)

    def sweep(
        self,
        through: Callable[..., tuple[Any, Any]],
        state: Any,
        *beside: Any,
        backward: bool = False,
    ) -> tuple[Any, Any]:
        """Calls a function of a part of the trajectory with the whole of it; see `Chunks.sweep`."""
        del backward  # there is one part only
        return through(state, self, *beside)


def as_matrix(rows: Rows) -> Float[Array, "rows carry"]:
    """Returns rows over the carry as one matrix."""
    return jax.vmap(whole_carry)(rows)


def pull_through(function: Callable[[Any], Any], at: Any, rows: Scaled) -> Scaled:
    """Computes rows · ∂function/∂at, where neither the factors nor their product underflow."""
    enlarged, shift = with_room(rows.value)
    return rescale(_pull(function, at, enlarged), rows.exponent - shift)


def _pull(function: Callable[[Any], Any], at: Any, rows: Rows) -> Rows:
    _, vjp = jax.vjp(function, at)
    return by_rows(jax.vmap(lambda row: vjp(row)[0])(rows))


def trace_of(
    cell: Cell,
    params: Params,
    inputs: Array,
    *,
    carry: Carry | None = None,
    lengths: Lengths | None = None,
    mask: Mask | None = None,
) -> Trace:
    """Runs the cell over one sequence, (T, input), and keeps what the measurements linearise.

    A complex carry is measured as its real and imaginary parts (`real_carry`).

    Raises:
      TypeError: If the cell is none, or the inputs or the carry are not floating.
      ValueError: If the inputs are not one sequence, or shapes do not fit.
    """
    check_is_cell(cell)
    cell, carry = as_real(cell), real_parts(carry)
    inputs = check_sequence(inputs)
    mask = valid_steps(inputs, lengths, mask)
    check_step(cell, params, start(cell, params, inputs, carry), inputs, batched=False)
    return _run(*open_cell(interned(cell), params, inputs, carry), inputs, mask)


@compiled("cell")
def _run(cell: Cell, params: Params, carry: Carry | None, inputs: Array, mask: Any) -> Trace:
    carries = unroll(cell, params, inputs, carry=carry, mask=mask).carries
    before = jax.tree.map(lambda leaf: leaf[:-1], carries)
    last = jax.tree.map(lambda leaf: leaf[-1], carries)
    xs = inputs if mask is None else (fill_padding(inputs, mask), mask)
    return Trace(cell, params, before, last, xs)
