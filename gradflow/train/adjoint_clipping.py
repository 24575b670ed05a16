"""Clipping of ∂L/∂s_t on its way back through time, where exploding starts."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Carry, Cell, Params
from gradflow.train.direction import compare, norm
from gradflow.unroll import unroll


class AdjointEffect(NamedTuple):
    """The gradient with clipped adjoints beside the true one.

    Attributes:
      cosine: Of the angle between them.
      norm_ratio: Norm with clipping over norm without.
      acted: At how many pairs of a step and a sequence the adjoint was clipped.
    """

    cosine: Float[Array, ""]
    norm_ratio: Float[Array, ""]
    acted: Float[Array, ""]


def clip_adjoints(cell: Cell, threshold: float, *, counter: Array | float = 0.0) -> Cell:
    """A cell whose adjoints are clipped: the same forwards, and no gradient backwards but theirs.

    With a_t = ∂L/∂s_t, all that reaches s_t from later steps and from the output h_t::

        a_t <- a_t · min(1, threshold / ‖a_t‖)      before it goes on through step t

    on the whole carry of one sequence. (The mean over a batch has adjoints of 1/B the size.)
    Reverse mode alone goes through.

    Args:
      cell: The cell.
      threshold: The largest norm, in units of the loss over those of the carry.
      counter: A scalar whose derivative is taken to be the number of times that it acted.
    """

    def step(params: Params, carry: Carry, x: Array) -> tuple[Carry, Array]:
        new, _ = cell.step(params, carry, x)
        dtype = jnp.result_type(*jax.tree.leaves(new))
        new = _identity(threshold, new, jnp.asarray(counter, dtype))
        return new, cell.hidden(new)

    return cell._replace(step=step)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _identity(threshold: float, carry: Carry, counter: Array) -> Carry:
    del threshold, counter
    return carry


def _forward(threshold: float, carry: Carry, counter: Array) -> tuple[Carry, None]:
    del threshold, counter
    return carry, None


def _backward(threshold: float, kept: None, adjoint: Carry) -> tuple[Carry, Array]:
    size = norm(adjoint)
    acts = size > threshold
    factor = jnp.where(acts, threshold / jnp.where(acts, size, 1), 1)
    return jax.tree.map(lambda a: factor * a, adjoint), acts.astype(size.dtype)


_identity.defvjp(_forward, _backward)


def adjoint_effect(
    loss: Callable[[Array], Array],
    cell: Cell,
    params: Params,
    inputs: Float[Array, "steps *batch input"],
    *,
    threshold: float,
) -> AdjointEffect:
    """Measures what clipping of the adjoints does to the gradient of a loss of the outputs.

    Args:
      loss: Takes the outputs, of shape (T, B, hidden) or (T, hidden), to a scalar.
      cell: The cell, not clipped.
      params: Its parameters.
      inputs: x_1 ... x_T, of one sequence or a batch.
      threshold: As in `clip_adjoints`.
    """

    def value(params: Params, counter: Array) -> Array:
        clipped = clip_adjoints(cell, threshold, counter=counter)
        return loss(unroll(clipped, params, inputs).outputs)

    counter = jnp.zeros((), inputs.dtype)
    clipped, acted = jax.grad(value, argnums=(0, 1))(params, counter)
    exact = jax.grad(lambda params: loss(unroll(cell, params, inputs).outputs))(params)
    return AdjointEffect(*compare(clipped, exact), acted)
