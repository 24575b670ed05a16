"""∂L/∂s_k for every step k from one reverse pass, as numbers and as log norms."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Carry, Cell, Params
from gradflow.flow.broken import broken_steps, last_broken, void
from gradflow.flow.closed_over import open_cell
from gradflow.flow.reverse import Loss, Recorded, Scaled, linearise, pull_back, record
from gradflow.flow.steps import Select, block, log_scaled, rescale
from gradflow.unroll import Lengths, Mask, check_inputs, valid_steps


def adjoints(
    loss: Loss,
    cell: Cell,
    params: Params,
    inputs: Float[Array, "steps input"],
    *,
    carry: Carry | None = None,
    lengths: Lengths | None = None,
    mask: Mask | None = None,
) -> Carry:
    """∂L/∂s_k for every k = 0 ... T: the total derivative of a loss of the outputs.

    With a_k = ∂L/∂s_k and h_k = hidden(s_k) for k = 1 ... T::

        a_k = a_{k+1} J_{k+1} + (∂L/∂h_k) (∂h_k/∂s_k)      a_T = (∂L/∂h_T) (∂h_T/∂s_T)

    a_k is how L answers to a change of s_k as it leaves step k. h_k is a part of s_k and changes
    with it, so that what L takes from h_k itself is in a_k. s_0 has no output: a_0 = a_1 J_1.

    Args:
      loss: Takes the outputs h_1 ... h_T, of shape (T, hidden), to a scalar. With padding, the
        outputs past the end repeat the last one.
      cell: The cell.
      params: Its parameters.
      inputs: x_1 ... x_T of one sequence; `jax.vmap` over more.
      carry: s_0; by default the cell's own.
      lengths: The number of real steps. A padded step copies the carry.
      mask: True where a step is real.

    Returns:
      A pytree like the trajectory's carries, index = k, in units of the loss. What is smaller
      than the smallest float is zero here, and exact in `log_adjoint_norms`. NaN for every k
      before a step at which the trajectory is not finite.

    Raises:
      TypeError: If the loss is not floating.
      ValueError: If it is not a scalar, or the inputs are not one sequence.

    Source: Werbos 1990, doi:10.1109/5.58337 (ordered derivatives through time).
    """
    mask = valid_steps(check_inputs(inputs), lengths, mask)
    cell, params, carry = open_cell(cell, params, inputs, carry)
    recorded = record(loss, cell, (params, inputs, carry, mask))
    return numbers(_joined(*scaled_adjoints(cell, recorded)))


def log_adjoint_norms(
    loss: Loss,
    cell: Cell,
    params: Params,
    inputs: Float[Array, "steps input"],
    *,
    source: str = "h",
    carry: Carry | None = None,
    lengths: Lengths | None = None,
    mask: Mask | None = None,
) -> Float[Array, " steps_and_one"]:
    """log ‖∂L/∂source_k‖ for every k = 0 ... T, however small it is.

    The norm is Euclidean, of a block of `adjoints`, which also explains the other arguments: the
    rest of s_k is held fixed. The adjoint is kept as a vector and an integer power of two.

    Args:
      source: The block of s_k: ``"h"``, ``"carry"`` or a field such as ``"c"``.

    Returns:
      Natural logarithms, index = k. Exactly -inf where nothing of the loss depends on the block.

    Raises:
      TypeError: If the loss is not floating.
      ValueError: If it is not a scalar, the carry has no such block, or the inputs are not one
        sequence.
    """
    mask = valid_steps(check_inputs(inputs), lengths, mask)
    cell, params, carry = open_cell(cell, params, inputs, carry)
    select = block(cell, source)
    recorded = record(loss, cell, (params, inputs, carry, mask))
    return log_sizes(select, _joined(*scaled_adjoints(cell, recorded)))


@partial(jax.jit, static_argnums=0)
def scaled_adjoints(
    cell: Cell, recorded: Recorded, later: Scaled | None = None
) -> tuple[Scaled, Scaled]:
    """∂L/∂s_0, and ∂L/∂s_1 ... ∂L/∂s_T along a leading axis, after what comes back from later."""
    with jax.default_matmul_precision("highest"):
        steps, direct = linearise(cell, recorded)

        def pull(s: Carry, x: Any, adjoint: Carry) -> tuple[Carry, Carry]:
            _, vjp = jax.vjp(lambda s: steps.cell.step(steps.params, s, x)[0], s)
            return vjp(adjoint)[0], adjoint

        first, rest = pull_back(steps, direct, pull, later)
        last = last_broken(broken_steps(steps))
        before_last = jnp.arange(1, steps.num_steps + 1) < last
        return (
            first._replace(value=void(last > 0, first.value)),
            rest._replace(value=void(before_last, rest.value)),
        )


@jax.jit
def numbers(scaled: Scaled) -> Carry:
    """Adjoints along a leading axis as numbers."""
    return jax.vmap(lambda v, e: jax.tree.map(lambda leaf: jnp.ldexp(leaf, e), v))(*scaled)


def log_sizes(select: Select, scaled: Scaled) -> Float[Array, " k"]:
    """The log norms of a block of adjoints along a leading axis."""

    def log_size(value: Carry, exponent: Array) -> Array:
        part, exponent = rescale(select(value), exponent)
        return log_scaled(jnp.linalg.norm(part), exponent)

    return jax.vmap(log_size)(*scaled)


def _joined(first: Scaled, rest: Scaled) -> Scaled:
    return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, rest)
