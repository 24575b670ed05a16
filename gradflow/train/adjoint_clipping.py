"""Clipping of the adjoint ∂L/∂s_t inside the backward pass, where gradients begin to explode."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Carry, Cell, Params
from gradflow.train.direction import compare, norm
from gradflow.unroll import unroll


class AdjointEffect(NamedTuple):
    """The gradient with clipped adjoints compared with the true one.

    Attributes:
      cosine: The cosine of the angle between them.
      norm_ratio: The norm with clipping over the norm without.
      acted: The number of pairs of a step and a sequence at which the adjoint was clipped.
    """

    cosine: Float[Array, ""]
    norm_ratio: Float[Array, ""]
    acted: Float[Array, ""]


class Counted(NamedTuple):
    """The parameters of a cell whose adjoints are clipped, with a count.

    Attributes:
      params: The parameters of the cell.
      acted: Without effect in the forward pass. Its derivative is defined as the number of pairs of
        a step and a sequence at which the adjoint was clipped: the backward pass has no other way
        to return a count.
    """

    params: Params
    acted: Float[Array, ""]


def counted(params: Params) -> Counted:
    """Adds a count to the parameters, in their float type."""
    return Counted(params, jnp.zeros((), jnp.result_type(*jax.tree.leaves(params))))


def clip_adjoints(cell: Cell, threshold: Any) -> Cell:
    """Returns a cell with the same forward pass whose adjoints are clipped in the backward pass.

    With a_t = ∂L/∂s_t, the sum of what reaches s_t from later steps and from the output h_t::

        a_t <- a_t · min(1, threshold / ‖a_t‖)      before it is pulled back through step t

    on the whole carry of one sequence. (The mean over a batch has adjoints of 1/B the size.)
    Only reverse mode is supported.

    Args:
      cell: The cell.
      threshold: The largest norm, in units of the loss over units of the carry; may be traced.
    """
    clipped = count_clipped(cell, threshold)
    return cell._replace(step=lambda params, carry, x: clipped.step(counted(params), carry, x))


def count_clipped(cell: Cell, threshold: Any) -> Cell:
    """Returns the cell of `clip_adjoints` with `Counted` parameters."""

    def step(params: Counted, carry: Carry, x: Array) -> tuple[Carry, Array]:
        new, _ = cell.step(params.params, carry, x)
        dtype = jnp.result_type(*jax.tree.leaves(new))
        new = _identity(new, jnp.asarray(threshold, dtype), params.acted)
        return new, cell.hidden(new)

    return cell._replace(init=lambda key: counted(cell.init(key)), step=step)


@jax.custom_vjp
def _identity(carry: Carry, threshold: Any, acted: Any) -> Carry:
    del threshold, acted
    return carry


def _forward(carry: Carry, threshold: Any, acted: Any) -> tuple[Carry, Any]:
    del acted
    return carry, threshold


def _backward(threshold: Any, adjoint: Carry) -> tuple[Carry, Array, Array]:
    size = norm(adjoint)
    acts = size > threshold
    factor = jnp.where(acts, threshold / jnp.where(acts, size, 1), 1)
    clipped = jax.tree.map(lambda a: factor * a, adjoint)
    return clipped, jnp.zeros_like(threshold), acts.astype(size.dtype)


_identity.defvjp(_forward, _backward)


def adjoint_effect(
    cell: Cell,
    params: Params,
    inputs: Float[Array, "steps *batch input"],
    *,
    loss: Callable[[Array], Array],
    threshold: float,
) -> AdjointEffect:
    """Compares the gradient of a loss of the outputs with and without clipped adjoints.

    Args:
      cell: The cell without clipping.
      params: Its parameters.
      inputs: x_1 ... x_T, of one sequence or a batch.
      loss: (outputs of shape (T, B, hidden) or (T, hidden)) -> scalar.
      threshold: As in `clip_adjoints`.
    """

    def value(cell: Cell, params: Params) -> Array:
        return loss(unroll(cell, params, inputs).outputs)

    clipped = jax.grad(partial(value, count_clipped(cell, threshold)))(counted(params))
    exact = jax.grad(partial(value, cell))(params)
    return AdjointEffect(*compare(clipped.params, exact), clipped.acted)
