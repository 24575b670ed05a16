"""Checks of what a cell is run on: inputs, initial carry, step, and padding."""

import contextlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from gradflow.cell import Carry, Cell, Params
from gradflow.padding import copying_step, fill_padding

Lengths = Int[Array, "*batch"] | Sequence[int] | int
Mask = Bool[Array, "steps *batch"]


def start(cell: Cell, params: Params, inputs: Array, carry: Carry | None) -> Carry:
    """s_0, one for each sequence of the batch, in the float type in which the cell will run.

    Raises:
      TypeError: If a leaf of the carry is not floating.
      ValueError: If a carry that is given does not have the inputs' batch in front.
    """
    batch = inputs.shape[1:-1]
    if carry is None:
        carry = jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, batch + jnp.shape(leaf)), cell.initial_carry()
        )
    for path, leaf in jax.tree_util.tree_leaves_with_path(carry):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(
                f"a carry of floating arrays is expected, got {jnp.result_type(leaf)} at "
                f"carry{jax.tree_util.keystr(path)}: make it floating, for instance by "
                "jnp.zeros(n); it would have no gradient"
            )
        if jnp.shape(leaf)[: len(batch)] != batch:
            raise ValueError(
                f"a carry with the batch of the inputs, {batch}, in front is expected, "
                f"got shape {jnp.shape(leaf)} at carry{jax.tree_util.keystr(path)}"
            )
    dtype = jnp.result_type(inputs, *jax.tree.leaves(params))
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), carry)


def check_inputs(inputs: Array) -> Array:
    """The inputs as an array, if they are a sequence or a batch of sequences of floats.

    Raises:
      TypeError: If they are not floating.
      ValueError: If they are not of shape (T, input) or (T, B, input).
    """
    inputs = jnp.asarray(inputs)
    if not jnp.issubdtype(inputs.dtype, jnp.floating):
        raise TypeError(
            f"floating inputs are expected, got {inputs.dtype}: convert them, for instance by "
            "jax.nn.one_hot(inputs, n) for symbols or inputs.astype(float) for numbers"
        )
    if inputs.ndim not in (2, 3):
        raise ValueError(
            "inputs of shape (T, input), or (T, B, input) for a batch, are expected, "
            f"got shape {inputs.shape}"
        )
    return inputs


def check_step(cell: Cell, params: Params, carry: Carry, xs: Any, *, batched: bool) -> None:
    """Traces one step, so that what does not fit is said before anything is compiled.

    Raises:
      ValueError: If the step does not take these parameters, carry and inputs, or does not give
        back a carry like the one it took.
    """
    drop = 2 if batched else 1

    def example(leaf: Array, axes: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape[axes:], leaf.dtype)

    before = jax.tree.map(lambda leaf: example(leaf, drop - 1), carry)
    x = jax.tree.map(lambda leaf: example(leaf, drop), xs)
    try:
        after, _ = jax.eval_shape(cell.step, params, before, x)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        shapes = jax.tree.map(jnp.shape, params)
        raise ValueError(
            f"the cell's step does not take a carry of {before} and x of {x} with parameters of "
            f"shapes {shapes}: {error}; give parameters, a carry and inputs of its own sizes"
        ) from error
    same = jax.tree.structure(before) == jax.tree.structure(after) and all(
        (a.shape, a.dtype) == (b.shape, b.dtype)
        for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    )
    if not same:
        raise ValueError(
            f"a step is expected to return a carry like the one it took, {before}, got {after}"
        )


def valid_steps(
    inputs: Array, lengths: Lengths | None, mask: Mask | None
) -> Bool[Array, "steps *batch"] | None:
    """Which steps are real, as a mask, or None if all are.

    Raises:
      ValueError: If both are given, their shape does not fit, or a length is not within 0 ... T.
    """
    if lengths is not None and mask is not None:
        raise ValueError("lengths or a mask is expected, got both; leave one of them out")
    if mask is not None:
        mask = jnp.asarray(mask)
        if mask.shape != inputs.shape[:-1] or mask.dtype != bool:
            raise ValueError(
                f"a boolean mask of shape {inputs.shape[:-1]} is expected, "
                f"got {mask.dtype} of shape {mask.shape}"
            )
        return mask
    if lengths is None:
        return None
    num_steps, *batch = inputs.shape[:-1]
    given, lengths = lengths, jnp.asarray(lengths)
    if lengths.shape != tuple(batch) or not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise ValueError(
            f"integer lengths of shape {tuple(batch)} are expected, "
            f"got {lengths.dtype} of shape {lengths.shape}"
        )
    with contextlib.suppress(jax.errors.TracerArrayConversionError):  # values not known yet
        known = np.asarray(given)  # under a trace, what is made of it has no value
        if ((known < 0) | (known > num_steps)).any():
            raise ValueError(
                f"lengths within 0 ... T = {num_steps} are expected, got {known}: count real steps"
            )
    return jnp.arange(num_steps).reshape(-1, *(1 for _ in batch)) < lengths


def mask_cell(
    cell: Cell, inputs: Array, lengths: Lengths | None, mask: Mask | None
) -> tuple[Cell, Any]:
    """The cell and the inputs such that a padded step copies the carry.

    Where there is padding, the new cell's input at a step is the pair (x_t, whether t is real).
    """
    valid = valid_steps(inputs, lengths, mask)
    if valid is None:
        return cell, inputs

    return cell._replace(step=copying_step(cell)), (fill_padding(inputs, valid), valid)
