"""Cells whose functions close over traced values, such as a weight that is differentiated."""

import contextlib
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from gradflow.cell import Carry, Cell, Params
from gradflow.unroll import start


class Opened(NamedTuple):
    """Parameters of a cell, and the traced values that its functions closed over.

    Attributes:
      own: The cell's own parameters.
      step: What its step closed over.
      gates: What its gates closed over.
    """

    own: Params
    step: list[Any]
    gates: list[Any]


def open_cell(
    cell: Cell, params: Params, inputs: Any, carry: Carry | None = None
) -> tuple[Cell, Params, Carry | None]:
    """Returns the same cell with the traced values that it closes over as parameters.

    Measurements are compiled with the cell as a constant, which a traced value is not: without
    this, `jax.grad` through one by a weight that the step closes over raises
    `UnexpectedTracerError`. A cell that closes over none is returned as it is.

    Args:
      cell: The cell.
      params: Its parameters.
      inputs: The inputs of one sequence.
      carry: s_0, or None for the cell's own.

    Returns:
      The cell, its parameters (an `Opened` where there are such values), and s_0. Arguments that do
      not fit are returned as they are; the measurement then raises the error.
    """
    if all(f is None or _is_clean(f) for f in (cell.step, cell.gates, cell.initial_carry)):
        return cell, params, carry
    with contextlib.suppress(AttributeError, LookupError, TypeError, ValueError):
        s_0 = start(cell, params, inputs, carry)
        example = params, s_0, jax.tree.map(lambda leaf: leaf[0], inputs)
        step, gates = (_open(function, example) for function in (cell.step, cell.gates))
        if _closed_over(cell.initial_carry, ()) is None and step is None and gates is None:
            return cell, params, carry
        opened = Opened(params, step[1] if step else [], gates[1] if gates else [])
        shapes = jax.eval_shape(cell.initial_carry)
        return (
            cell._replace(
                step=_of_opened(cell.step, step and step[0], "step"),
                gates=cell.gates and _of_opened(cell.gates, gates and gates[0], "gates"),
                initial_carry=lambda: jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes),
            ),
            opened,
            s_0,
        )
    return cell, params, carry


def is_traced(value: Any) -> bool:
    """Returns whether a value is an array that has no numbers yet."""
    with jax.ensure_compile_time_eval():
        known = type(jnp.zeros(()))
    return isinstance(value, jax.Array) and type(value) is not known


def own_params(measured: Any) -> Any:
    """Returns the part of a measurement that belongs to the cell's own parameters."""
    return measured.own if isinstance(measured, Opened) else measured


def _open(function: Callable | None, example: tuple) -> tuple[Callable[..., Any], list[Any]] | None:
    """A function of its traced constants and its arguments, and those constants; None without."""
    closed = None if function is None else _closed_over(function, example)
    if function is None or closed is None:
        return None
    jaxpr = closed.jaxpr
    tree = jax.tree.structure(jax.eval_shape(function, *example))
    variables = [*jaxpr.constvars, *jaxpr.invars]
    opened = core.ClosedJaxpr(jaxpr.replace(constvars=[], invars=variables), [])

    def run(constants: list[Any], *arguments: Any) -> Any:
        results = core.jaxpr_as_fun(opened)(*constants, *jax.tree.leaves(arguments))
        return jax.tree.unflatten(tree, results)

    return run, list(closed.consts)


def _of_opened(function: Callable, run: Callable | None, name: str) -> Callable:
    """The step, or the gates, of `Opened` parameters."""
    if run is None:
        return lambda opened, *rest: function(opened.own, *rest)
    return lambda opened, *rest: run(getattr(opened, name), opened.own, *rest)


_CLEAN: weakref.WeakSet[Callable] = weakref.WeakSet()
"""Functions that were found to close over nothing traced, and are not traced again."""


def _is_clean(function: Callable) -> bool:
    with contextlib.suppress(TypeError):  # of what takes no weak reference
        return function in _CLEAN
    return False


def _closed_over(function: Callable, example: tuple) -> core.ClosedJaxpr | None:
    """The traced function, if it closes over a traced value."""
    if _is_clean(function):
        return None
    closed = jax.make_jaxpr(function)(*example)
    if any(map(is_traced, closed.consts)):
        return closed
    with contextlib.suppress(TypeError):
        _CLEAN.add(function)
    return None
