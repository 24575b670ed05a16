"""`unroll`, which runs a cell over a sequence or over a batch of sequences."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from gradflow.cell import Carry, Cell, Params
from gradflow.spec import check_name
from gradflow.unroll.fit import check_is_cell, check_step
from gradflow.unroll.inputs import Lengths, Mask, check_inputs, mask_cell, start
from gradflow.unroll.methods import METHODS, REMATS, parallel_runner, runner_of


class Trajectory(NamedTuple):
    """The states and outputs of a cell over time.

    Attributes:
      carries: The carry's pytree, each leaf with a leading axis T + 1: ``carries[t]`` is s_t.
      outputs: ``outputs[t-1]`` is h_t.
    """

    carries: PyTree[Float[Array, "steps_and_one ..."]]
    outputs: Float[Array, "steps *batch hidden"]


def unroll(
    cell: Cell,
    params: Params,
    inputs: Float[Array, "steps *batch input"],
    *,
    carry: Carry | None = None,
    lengths: Lengths | None = None,
    mask: Mask | None = None,
    method: str = "auto",
    remat: str = "none",
) -> Trajectory:
    """Runs a cell over a sequence, or over a batch of them: s_t = step(params, s_{t-1}, x_t).

    Args:
      cell: The cell.
      params: Its parameters.
      inputs: x_1 ... x_T, of shape (T, input) or, for a batch, (T, B, input).
      carry: s_0; by default ``cell.initial_carry()``. With a batch, each leaf has B in front.
      lengths: Number of real steps of each sequence; the steps after them are padding.
      mask: True where a step is real; the general form of ``lengths``.
      method: ``scan`` is `jax.lax.scan` of the step and nothing else. ``joined`` rewrites the
        step (`gradflow.unroll.planner`): matrix products with the same vector are joined into
        one. ``planned`` also forms the gradients of matrices after the loop. The numbers are the
        same to rounding. A step that cannot be rewritten is scanned, and the logger ``gradflow``
        says why at level debug. ``parallel`` takes 128 steps at a time, by an associative scan over
        the Jacobians of a step that is affine in the carry, as the program of the step shows; a
        growth beyond the largest float within these gives NaN. ``auto`` runs a batch as the table
        `gradflow.unroll.rules` says for the backend (on CPU planned where that was measured to be
        faster, on accelerators, not yet measured, joined), and scans a single sequence.
      remat: What reverse mode recomputes in the backward pass to save memory: ``none`` stores
        what it needs of every step, ``step`` the carries alone (``parallel``: one in 128), and
        ``sqrt`` every √T-th carry.

    Returns:
      The trajectory. A padded step copies the carry, so its step Jacobian is the identity.

    Raises:
      TypeError: If the inputs or the carry are not floating.
      ValueError: If shapes do not fit, lengths are not within 0 ... T, method or remat is unknown,
        or the method is ``parallel`` and the step is not affine in the carry.
    """
    check_name("method", method, METHODS)
    check_name("remat", remat, REMATS)
    check_is_cell(cell)
    inputs = check_inputs(inputs)
    padded, xs = mask_cell(cell, inputs, lengths, mask)
    s_0 = start(cell, params, inputs, carry)
    batched = inputs.ndim == 3
    check_step(padded, params, s_0, xs, batched=batched)
    if method == "parallel" and len(inputs):
        run = parallel_runner(cell, params, s_0, xs, batched=batched, remat=remat)
    else:
        run = runner_of(padded.step, params, s_0, xs, batched=batched, method=method, remat=remat)
    carries, outputs = run(s_0, xs)
    return Trajectory(jax.tree.map(_prepend, s_0, carries), outputs)


def _prepend(first: Array, rest: Array) -> Array:
    return jnp.concatenate([first[None], rest])
