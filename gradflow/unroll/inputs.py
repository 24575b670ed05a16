"""Checks of the arguments of `gradflow.unroll`: inputs, initial carry, and padding."""

import contextlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from gradflow.cell import Carry, Cell, Params
from gradflow.padding import copying_step, fill_padding
from gradflow.unroll.fit import check_is_cell, check_params

Lengths = Int[Array, "*batch"] | Sequence[int] | int
"""The number of real steps of a sequence, or of each sequence of a batch."""

Mask = Bool[Array, " steps *batch"]
"""True where a step is real and False where it is padded."""


def start(cell: Cell, params: Params, inputs: Array, carry: Carry | None) -> Carry:
    """Returns s_0 for each sequence of the batch, in the float type in which the cell will run.

    Raises:
      TypeError: If the cell is none, a parameter is a random key, or a leaf of the carry is not
        floating.
      ValueError: If a given carry does not have the batch axes of the inputs in front.
    """
    check_is_cell(cell)
    check_params(params)
    batch = inputs.shape[1:-1]
    if carry is None:
        carry = jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, batch + jnp.shape(leaf)), cell.initial_carry()
        )
    for path, leaf in jax.tree_util.tree_leaves_with_path(carry):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(
                f"Expected a carry of floating arrays, got {jnp.result_type(leaf)} at "
                f"carry{jax.tree_util.keystr(path)}, which has no gradient. Make it floating, for "
                "example jnp.zeros(n)."
            )
        if jnp.shape(leaf)[: len(batch)] != batch:
            raise ValueError(
                f"Expected a carry whose leading axes are those of the batch, {batch}, got shape "
                f"{jnp.shape(leaf)} at carry{jax.tree_util.keystr(path)}. Add them, for example by "
                f"jnp.broadcast_to(leaf, {batch} + leaf.shape)."
            )
    dtype = jnp.result_type(inputs, *jax.tree.leaves(params))
    dtype = jnp.finfo(dtype).dtype  # of a complex type that of its parts
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), carry)


def check_inputs(inputs: Array) -> Array:
    """Checks that the inputs are a sequence or a batch of sequences of floats.

    Returns:
      The inputs as a JAX array.

    Raises:
      TypeError: If the inputs are not a floating array.
      ValueError: If they are not of shape (T, input) or (T, B, input).
    """
    if isinstance(inputs, dict | str) or hasattr(inputs, "_fields"):
        raise TypeError(
            f"Expected inputs as an array of shape (T, input), got a {type(inputs).__name__}. Give "
            "the arguments in the order cell, params, inputs."
        )
    inputs = jnp.asarray(inputs)
    if not jnp.issubdtype(inputs.dtype, jnp.floating):
        raise TypeError(
            f"Expected floating inputs, got {inputs.dtype}. Convert them, for example by "
            "jax.nn.one_hot(inputs, n) for token ids or inputs.astype(float) for numbers."
        )
    if inputs.ndim not in (2, 3):
        raise ValueError(
            f"Expected inputs of shape (T, input), or (T, B, input) for a batch, got shape "
            f"{inputs.shape}. Make time the first axis and the features the last one."
        )
    return inputs


def check_sequence(inputs: Array) -> Float[Array, "steps input"]:
    """Returns the inputs as an array, if they are one sequence of floats.

    Raises:
      TypeError: If they are not floating.
      ValueError: If they are a batch, or there is no step.
    """
    inputs = check_inputs(inputs)
    if inputs.ndim != 2:
        raise ValueError(
            f"Expected one sequence of inputs, of shape (T, input), got shape {inputs.shape}. "
            "Use jax.vmap to map the measurement over a batch."
        )
    if not len(inputs):
        raise ValueError("Expected inputs of at least one step, got T = 0. Give a longer sequence.")
    return inputs


def valid_steps(
    inputs: Array, lengths: Lengths | None, mask: Mask | None
) -> Bool[Array, " steps *batch"] | None:
    """Returns a mask that is True at real steps and False at padding, or None without padding.

    Raises:
      ValueError: If lengths and a mask are given, a shape is wrong, or a length is not in 0 ... T.
    """
    if lengths is not None and mask is not None:
        raise ValueError("Expected lengths or a mask, got both. Remove one of them.")
    if mask is not None:
        mask = jnp.asarray(mask)
        if mask.shape != inputs.shape[:-1] or mask.dtype != bool:
            raise ValueError(
                f"Expected a boolean mask of shape {inputs.shape[:-1]}, got {mask.dtype} of shape "
                f"{mask.shape}. Give one entry for each step of each sequence."
            )
        return mask
    if lengths is None:
        return None
    num_steps, *batch = inputs.shape[:-1]
    given, lengths = lengths, jnp.asarray(lengths)
    if lengths.shape != tuple(batch) or not jnp.issubdtype(lengths.dtype, jnp.integer):
        fix = "Give the number of real steps of each sequence"
        if batch and lengths.shape == (num_steps,):
            fix = "If the inputs are batch-first, give jnp.swapaxes(inputs, 0, 1)"
        raise ValueError(
            f"Expected integer lengths of shape {tuple(batch)}, got {lengths.dtype} of shape "
            f"{lengths.shape}. {fix}."
        )
    # Traced lengths have no values to check. `given`, because under a trace even an array made
    # from a Python list is traced.
    with contextlib.suppress(jax.errors.TracerArrayConversionError):
        known = np.asarray(given)
        if ((known < 0) | (known > num_steps)).any():
            fix = "Count real steps"
            if batch and num_steps < batch[0] and np.max(known) <= batch[0]:
                fix = "If the inputs are batch-first, give jnp.swapaxes(inputs, 0, 1)"
            raise ValueError(f"Expected lengths between 0 and T = {num_steps}, got {known}. {fix}.")
    return jnp.arange(num_steps).reshape(-1, *(1 for _ in batch)) < lengths


def mask_cell(
    cell: Cell, inputs: Array, lengths: Lengths | None, mask: Mask | None
) -> tuple[Cell, Any]:
    """Returns a cell and inputs with which a padded step copies the carry.

    If there is padding, the new cell's input at a step is the pair (x_t, whether t is real).
    """
    valid = valid_steps(inputs, lengths, mask)
    if valid is None:
        return cell, inputs

    return cell._replace(step=copying_step(cell)), (fill_padding(inputs, valid), valid)
