"""Whether a cell, its parameters, its inputs and its carry fit each other.

Where they do not, the error names the one that is wrong: it compares the parameters with those of
`Cell.init`, the carry with `Cell.initial_carry`, and tries which inputs the step takes.
"""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradflow.cell import Carry, Cell, Params, param_shapes
from gradflow.checks import shorten

_FAULTS = (AttributeError, LookupError, TypeError, ValueError)
"""What a step raises for arguments that it does not take."""


def check_is_cell(cell: Any) -> None:
    """Checks that a cell is one, and neither its name nor its factory.

    Raises:
      TypeError: If it is anything else.
    """
    if isinstance(cell, Cell):
        return
    if isinstance(cell, str):
        got = f"the name {shorten(repr(cell))}"
        fix = f"Make it: gradflow.cells.resolve({cell!r})(input_size, hidden_size)"
    elif inspect.isroutine(cell):
        name = getattr(cell, "__name__", "factory")
        got = f"the function {name}"
        fix = "If it is a factory, call it first: factory(input_size, hidden_size)"
    else:
        got = type(cell).__name__
        fix = "Give the arguments in the order cell, params, inputs"
    raise TypeError(f"Expected a cell, a gradflow.Cell, got {got}. {fix}.")


def check_params(params: Params) -> None:
    """Checks that parameters are not the key that they are initialised from.

    Raises:
      TypeError: If one of them is a random key.
    """
    for leaf in jax.tree.leaves(params):
        if jnp.issubdtype(getattr(leaf, "dtype", float), jax.dtypes.prng_key):
            raise TypeError(
                "Expected parameters, got a random key. Initialise them: params = cell.init(key)."
            )


def check_step(cell: Cell, params: Params, carry: Carry, xs: Any, *, batched: bool) -> None:
    """Traces one step, so that an error of shape or type is reported before compilation.

    Raises:
      ValueError: If the step does not take these parameters, carry and inputs, or does not return
        a carry of the structure, shapes and types of its argument.
    """
    drop = 2 if batched else 1

    def example(leaf: Array, axes: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape[axes:], leaf.dtype)

    before = jax.tree.map(lambda leaf: example(leaf, drop - 1), carry)
    x = jax.tree.map(lambda leaf: example(leaf, drop), xs)
    try:
        after, _ = jax.eval_shape(cell.step, params, before, x)
    except _FAULTS as error:
        shape = jax.tree.leaves(xs)[0].shape
        fault = _params_fault(cell, params) or _carry_fault(cell, before)
        fault = fault or _inputs_fault(cell, params, before, x, shape)
        raise ValueError(fault or _any_fault(params, before, x, error)) from error
    if _form(before) != _form(after):
        raise ValueError(
            f"Expected a step that returns a carry like its argument, {before}, got {after}. "
            "Return the same structure, shapes and types, without broadcasting."
        )


def _form(tree: Any) -> tuple[Any, list[Any]]:
    leaves, structure = jax.tree.flatten(tree)
    return structure, [(leaf.shape, leaf.dtype) for leaf in leaves]


def _params_fault(cell: Cell, params: Params) -> str:
    """What is wrong with the parameters; nothing if they are like those of `Cell.init`."""
    try:
        expected = _shapes(param_shapes(cell))
    except Exception:  # of a user's own init, which this error is not about
        return ""
    found = _shapes(params)
    for name in [*expected, *found]:
        if expected.get(name) != found.get(name):
            wanted, got = (str(shapes.get(name, "none")) for shapes in (expected, found))
            return (
                f"Expected the parameters of this cell, in which {name or 'the array'} has shape "
                f"{wanted}, got {got}. Give the parameters that its own init returns, "
                "cell.init(key), or a cell of their kind and sizes."
            )
    return ""


def _carry_fault(cell: Cell, before: Carry) -> str:
    """What is wrong with s_0; nothing if it is like that of the cell."""
    expected, found = _shapes(jax.eval_shape(cell.initial_carry)), _shapes(before)
    if expected == found:
        return ""
    wanted, got = (", ".join(f"{n} {s}".strip() for n, s in o.items()) for o in (expected, found))
    return (
        f"Expected a carry like that of cell.initial_carry(), of shapes {wanted}, got {got}. "
        "Give such a carry, or remove carry=."
    )


def _inputs_fault(cell: Cell, params: Params, before: Carry, x: Any, shape: tuple[int, ...]) -> str:
    """What is wrong with the inputs, if the step takes those of one other width."""
    first, *rest = jax.tree.leaves(x)

    def takes(width: int) -> bool:
        other = jax.ShapeDtypeStruct((width,), first.dtype)
        try:
            jax.eval_shape(cell.step, params, before, (other, *rest) if rest else other)
        except _FAULTS:
            return False
        return True

    # The input size is a side of some matrix.
    sizes = sorted({size for leaf in jax.tree.leaves(params) for size in jnp.shape(leaf)})
    widths = [size for size in sizes if takes(size)]
    if len(widths) != 1:
        return ""
    (width,) = widths
    is_batch = len(shape) == 3
    if width in shape[:-1]:
        moved = f"jnp.moveaxis(inputs, {shape.index(width)}, -1)" if is_batch else "inputs.T"
        fix = f"The features seem to be on another axis: give {moved}"
    else:
        fix = f"Give inputs of that width, or a cell of input size {shape[-1]}"
    return (
        f"Expected inputs of shape {'(T, B, input)' if is_batch else '(T, input)'} with {width} "
        f"features, the input size of the cell, got shape {shape}. {fix}."
    )


def _any_fault(params: Params, before: Carry, x: Any, error: Exception) -> str:
    reason = shorten(next(iter(str(error).splitlines()), type(error).__name__))
    return (
        f"Expected arguments that the cell's step takes, got a carry of {before}, x of {x} and "
        f"parameters of shapes {_shapes(params)}: {reason.rstrip('.')}. Give parameters, a carry "
        "and inputs of the cell's sizes."
    )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """The shape of every leaf by its name."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): jnp.shape(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
