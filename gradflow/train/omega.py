"""Ω, the regulariser that penalises changes of the adjoint's norm at each backward step."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gradflow.cell import Carry, Cell, Params
from gradflow.train.held_slopes import hold_slopes
from gradflow.unroll import start

Loss = Callable[[Float[Array, "steps batch hidden"]], Float[Array, ""]]
"""Takes the outputs h_1 ... h_T of a batch to a scalar."""

_SMALLEST = 1e-20
"""Squared norm of an adjoint below which a step is left out, as in the paper's code."""


def preserve_norm(
    cell: Cell,
    params: Params,
    inputs: Float[Array, "steps batch input"],
    *,
    loss: Loss,
    squared: bool = False,
) -> Float[Array, ""]:
    """Computes Ω, the mean squared relative change of the adjoint's norm at a step.

    With a_k = ∂L/∂s_k on the whole carry of one sequence::

        Ω = mean over k, sequences of (‖a_k J_k‖ / ‖a_k‖ - 1)²      J_k = ∂s_k/∂s_{k-1}

    Its derivative is the immediate one of the paper: states, adjoints and the slopes of pointwise
    functions are held fixed, and only the explicit parameters in J_k are differentiated (for
    h_k = tanh(W h_{k-1} + ...), the W of J_k = diag(1 - h_k²) W). Steps with ‖a_k‖² < 1e-20 are
    left out of the mean, as in the paper's code; eq. 9 has the sum over steps instead.

    Args:
      cell: The cell.
      params: Its parameters.
      inputs: x_1 ... x_T of the batch.
      loss: L, of the outputs of the batch.
      squared: Takes the ratio of the squared norms, as the paper's code does.

    Source: Pascanu, Mikolov, Bengio 2013, arXiv:1211.5063, eq. 9 and 10, and its code.
    """
    before, adjoints = jax.lax.stop_gradient(_record(cell, params, inputs, loss))

    def deviation(s: Carry, x: Array, adjoint: Carry) -> tuple[Array, Bool[Array, ""]]:
        _, vjp = jax.vjp(hold_slopes(lambda s: cell.step(params, s, x)[0]), s)
        size = _square(adjoint)
        counts = size >= _SMALLEST
        ratio = _square(vjp(adjoint)[0]) / jnp.where(counts, size, 1)
        if not squared:
            ratio = jnp.where(ratio > 0, jnp.sqrt(jnp.where(ratio > 0, ratio, 1)), 0)
        return jnp.where(counts, (ratio - 1) ** 2, 0), counts

    deviations, counts = jax.vmap(jax.vmap(deviation))(before, inputs, adjoints)
    return jnp.sum(deviations) / jnp.maximum(jnp.sum(counts), 1)


def _record(cell: Cell, params: Params, inputs: Array, loss: Loss) -> tuple[Carry, Carry]:
    """Computes s_0 ... s_{T-1} and ∂L/∂s_1 ... ∂L/∂s_T, by perturbations added to each carry."""
    s_0 = start(cell, params, inputs, None)
    step = jax.vmap(cell.step, in_axes=(None, 0, 0))

    def total(pushes: Carry) -> tuple[Array, Carry]:
        def body(s: Carry, now: tuple[Array, Carry]) -> tuple[Carry, tuple[Carry, Array]]:
            x, push = now
            new = jax.tree.map(jnp.add, step(params, s, x)[0], push)
            return new, (s, jax.vmap(cell.hidden)(new))

        _, (before, outputs) = jax.lax.scan(body, s_0, (inputs, pushes))
        return loss(outputs), before

    pushes = jax.tree.map(lambda leaf: jnp.zeros((len(inputs), *leaf.shape), leaf.dtype), s_0)
    adjoints, before = jax.grad(total, has_aux=True)(pushes)
    return before, adjoints


def _square(tree: Any) -> Float[Array, ""]:
    return jnp.sum(jnp.stack([jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)]))
