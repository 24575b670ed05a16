"""The part of a cell's contract that abstract evaluation can check, without computing anything."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gradflow.cell import Cell


class CellContractError(ValueError):
    """A violation of a cell's contract; the message names the clause, the value and the fix."""


def check_structure(
    factory: Callable[..., Cell], *, input_size: int = 3, hidden_size: int = 4
) -> None:
    """Checks structure, shapes and float types of a cell with `jax.eval_shape` only.

    Nothing is compiled or computed, so that an experiment can run this check at every start. The
    step is checked in float32 and, if x64 is on, in float64.

    Raises:
      CellContractError: For the first clause that is violated; one of 'factory', 'hash', 'init',
        'initial_carry', 'step', 'carry', 'dtype', 'hidden' and 'gates'.
    """
    cell = build(factory, input_size, hidden_size)
    key = jax.eval_shape(jax.random.key, 0)
    params = attempt("init", "init(key)", jax.eval_shape, cell.init, key)
    _check_floating("init", params)
    carry = attempt("initial_carry", "initial_carry()", jax.eval_shape, cell.initial_carry)
    require(
        bool(jax.tree.leaves(carry)),
        "initial_carry",
        "a pytree of at least one array",
        carry,
        "Return s_0, for example jnp.zeros(hidden_size)",
    )
    _check_floating("initial_carry", carry)
    x = jax.ShapeDtypeStruct((input_size,), "float32")
    for dtype in sorted({"float32", jnp.result_type(float).name}):
        _check_step(cell, _as_type((params, carry, x), dtype), hidden_size)


def build(factory: Callable[..., Cell], input_size: int, hidden_size: int) -> Cell:
    """Calls the factory, and checks that the result is a hashable cell.

    Raises:
      CellContractError: If it is not. Errors of the factory itself are not caught.
    """
    try:
        inspect.signature(factory).bind(input_size, hidden_size)
    except TypeError as error:
        require(
            False,
            "factory",
            "a factory to be called as factory(input_size, hidden_size)",
            f"{inspect.signature(factory)} ({error})",
            "Give its other arguments defaults",
        )
    cell = factory(input_size, hidden_size)
    fix = "Return gradflow.Cell(init, step, initial_carry, ...) from the factory"
    require(isinstance(cell, Cell), "factory", "a gradflow.Cell", type(cell).__name__, fix)
    try:
        hash(cell)
    except TypeError as error:
        fix = "Make init, step, initial_carry, hidden and gates plain functions"
        require(False, "hash", "a cell of hashable functions", error, fix)
    return cell


def require(holds: bool, clause: str, expected: str, got: object, fix: str) -> None:
    """Raises an error if a clause does not hold.

    Raises:
      CellContractError: With the name of the clause, the expected and the actual value, and the
        fix, a sentence without its full stop.
    """
    if not holds:
        raise CellContractError(f"Clause {clause!r}: expected {expected}, got {got}. {fix}.")


def attempt(clause: str, call: str, function: Callable[..., Any], *args: Any) -> Any:
    """Calls the function, and reports an exception as a violation of the clause.

    Raises:
      CellContractError: If the function raises, with its exception as the cause.
    """
    try:
        return function(*args)
    except Exception as error:
        raise CellContractError(
            f"Clause {clause!r}: expected {call} to return under JAX's tracing, got "
            f"{type(error).__name__}: {error}. Use only jax.numpy functions in it, no NumPy ones."
        ) from error


def _check_floating(clause: str, tree: Any) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        require(
            jnp.issubdtype(leaf.dtype, jnp.floating),
            clause,
            "a pytree of floating arrays",
            f"{leaf.dtype} at {jax.tree_util.keystr(path) or 'its root'}",
            "Make it floating, because an integer array has no gradient",
        )


def _as_type(tree: Any, dtype: str) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), tree)


def _check_step(cell: Cell, arguments: tuple[Any, Any, Any], hidden_size: int) -> None:
    _, carry, x = arguments
    call = "step(params, carry, x)"
    pair = attempt("step", call, jax.eval_shape, cell.step, *arguments)
    is_pair = isinstance(pair, tuple) and len(pair) == 2 and hasattr(pair[1], "shape")
    require(is_pair, "step", f"a pair (carry, h) from {call}", pair, "Return carry, h")
    new, h = pair
    fix = "Return a carry of the structure and shapes of the argument, without broadcasting"
    require(_shapes(new) == _shapes(carry), "carry", f"a new carry like {carry}", new, fix)
    require(
        {leaf.dtype for leaf in jax.tree.leaves(pair)} == {x.dtype},
        "dtype",
        f"{x.dtype} from a step on {x.dtype}",
        pair,
        "Give constants the dtype of the carry, for example jnp.zeros_like(h), not jnp.zeros(n)",
    )
    hidden = attempt("hidden", "hidden(carry)", jax.eval_shape, cell.hidden, new)
    is_h = getattr(hidden, "shape", None) == h.shape
    fix = "Return hidden(new carry) as h"
    require(is_h, "hidden", f"an h like the step's {h}", hidden, fix)
    if cell.gates is not None:
        call = "gates(params, carry, x)"
        gates = attempt("gates", call, jax.eval_shape, cell.gates, *arguments)
        _check_gates(gates, {h.shape, (hidden_size,)})


def _shapes(tree: Any) -> tuple[Any, list[tuple[int, ...]]]:
    return jax.tree.structure(tree), [leaf.shape for leaf in jax.tree.leaves(tree)]


def _check_gates(gates: Any, shapes: set[tuple[int, ...]]) -> None:
    is_mapping = isinstance(gates, Mapping) and all(isinstance(name, str) for name in gates)
    fix = 'Return a dict such as {"f": f}'
    require(is_mapping, "gates", "a mapping from gates' names to arrays", gates, fix)
    for name, gate in gates.items():
        require(
            getattr(gate, "shape", None) in shapes and jnp.issubdtype(gate.dtype, jnp.floating),
            "gates",
            "a floating vector of shape (hidden,) for each gate",
            f"{gate} for {name!r}",
            "Return the activation of each unit for each gate",
        )
