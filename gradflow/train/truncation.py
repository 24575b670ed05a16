"""Truncated backpropagation through time.

TBPTT(k1, k2): at t = k1, 2 k1, ... the losses of the newest k1 steps are propagated back through
the newest k2 steps, with s_{t-k2} held fixed::

    g_t = ∂/∂θ Σ_{τ = t-k1+1 ... t} ℓ_τ        through steps t - k2 + 1 ... t

Every loss is counted once. With k2 < k1 the losses that are older than k2 steps affect only the
readout. The gradient of a whole sequence is the sum over its windows; with k1 = k2 = T it is the
full gradient.

Source: Williams & Peng 1990, doi:10.1162/neco.1990.2.4.490, BPTT(h; h') with h = k2, h' = k1 (where
only the newest loss is backpropagated, if the others have weight 0).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from gradflow.cell import Cell, Params
from gradflow.train.stream import (
    StepLosses,
    Stream,
    WindowGradient,
    at,
    begin_stream,
    check_stream,
    window_gradient,
)
from gradflow.unroll import unroll

__all__ = [
    "StepLosses",
    "Stream",
    "WindowGradient",
    "begin_stream",
    "truncated_gradient",
    "window_gradient",
]


def truncated_gradient(
    losses: StepLosses,
    cell: Cell,
    params: Params,
    inputs: Float[Array, "steps batch input"],
    extra: PyTree,
    *,
    k1: int,
    k2: int,
) -> WindowGradient:
    """Computes the sum of the losses of whole sequences, and its gradient by TBPTT(k1, k2).

    If k1 does not divide T, the last window has the remaining steps, and its losses are
    backpropagated through k2 steps as well.

    Args:
      losses: Computes the loss of each step.
      cell: The cell.
      params: ``{"cell": ..., "readout": ...}``, or without a readout.
      inputs: x_1 ... x_T of a batch.
      extra: Further arguments of ``losses``: a pytree with T along the leading axes.
      k1: Steps from one window to the next.
      k2: Steps back.

    Raises:
      TypeError: If k1 or k2 is not an integer.
      ValueError: If one is below 1, or the inputs are not (T, B, input).
    """
    check_stream(inputs, k1, k2)
    k1, k2 = min(k1, len(inputs)), min(k2, len(inputs))
    stream = begin_stream(cell, params, inputs, k1=k1, k2=k2)
    whole = len(inputs) // k1 * k1

    def one(stream: Stream, window: Any) -> tuple[Stream, WindowGradient]:
        return window_gradient(losses, cell, params, stream, window, k2=k2)

    # The sum is carried along: stacked, the gradients would take memory for each window.
    def add(state: tuple[Stream, WindowGradient], window: Any) -> tuple[Any, None]:
        stream, found = one(state[0], window)
        return (stream, jax.tree.map(jnp.add, state[1], found)), None

    def cut(leaf: Array) -> Array:
        return leaf[:whole].reshape(-1, k1, *leaf.shape[1:])

    windows = jax.tree.map(cut, (inputs, extra))
    first = jax.tree.map(lambda leaf: leaf[0], windows)
    zero = jax.tree.map(jnp.zeros_like, jax.eval_shape(one, stream, first)[1])
    (_, total), _ = jax.lax.scan(add, (stream, zero), windows)
    if whole == len(inputs):
        return total
    rest = jax.tree.map(lambda leaf: leaf[whole:], (inputs, extra))
    # The stream holds k2 - k1 steps; this shorter window needs more of the past.
    first = max(len(inputs) - max(k2, len(rest[0])), 0)
    past = inputs[first:whole]
    carry = at(unroll(cell, params["cell"], inputs[:first]).carries, first)
    stream = Stream(carry, past, jnp.ones(past.shape[:2], bool))
    return jax.tree.map(jnp.add, total, one(stream, rest)[1])
