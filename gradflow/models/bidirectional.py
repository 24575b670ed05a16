"""Bidirectional models: two cells that read a sequence forwards and backwards."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped

from gradflow.cell import Cell, Key, Params
from gradflow.models.shapes import Model, Sequence, Vector
from gradflow.unroll import Lengths, unroll


def bidirectional(forward: Cell, backward: Cell, *, last: bool = False) -> Model:
    """Combines a cell that reads from the first step to the last with one that reads backwards.

    With L real steps, →s_t = step(→s_{t-1}, x_t) from →s_0 and ←s_t = step(←s_{t+1}, x_t) from
    ←s_{L+1}; the output at step t is [→h_t; ←h_t]. Each sequence of a batch is reversed from its
    own last real step, so that padding comes last for both cells. The measurements of
    `gradflow.flow` take one direction at a time, on ``inputs`` or on `reverse` of them.

    ``apply(params, inputs, *, lengths=None)`` returns (T, *batch, both hidden sizes): a padded
    step repeats →h_L and ←h_1. The parameters are ``params["forward"]`` and
    ``params["backward"]``.

    Args:
      forward: Reads x_1 ... x_L.
      backward: Reads x_L ... x_1.
      last: Whether to return only [→h_L; ←h_1], the last h of each cell, (*batch, both sizes).

    Source: Schuster & Paliwal 1997, doi:10.1109/78.650093.
    """

    def init(key: Key) -> Params:
        k_forward, k_backward = jax.random.split(key)
        return {"forward": forward.init(k_forward), "backward": backward.init(k_backward)}

    def apply(
        params: Params, inputs: Sequence, *, lengths: Lengths | None = None
    ) -> Sequence | Vector:
        there = unroll(forward, params["forward"], inputs, lengths=lengths).outputs
        turned = reverse(inputs, lengths)
        back = unroll(backward, params["backward"], turned, lengths=lengths).outputs
        if last:
            return jnp.concatenate([there[-1], back[-1]], axis=-1)
        return jnp.concatenate([there, reverse(back, lengths)], axis=-1)

    return Model(init, apply)


def reverse(
    inputs: Shaped[Array, "steps *batch size"], lengths: Lengths | None = None
) -> Shaped[Array, "steps *batch size"]:
    """Reverses each sequence up to its length, x_L ... x_1, and leaves the padding in place."""
    if lengths is None:
        return inputs[::-1]
    t = jnp.arange(len(inputs)).reshape(-1, *(1 for _ in inputs.shape[1:-1]))
    lengths = jnp.asarray(lengths)
    source = jnp.where(t < lengths, lengths - 1 - t, t)
    return jnp.take_along_axis(inputs, source[..., None], axis=0)
