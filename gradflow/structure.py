"""The clauses of a cell's contract that abstract evaluation can check: nothing is computed."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gradflow.cell import Cell


class CellContractError(ValueError):
    """A cell breaks its contract; the message names the clause, what came, and the mend."""


def check_structure(
    factory: Callable[..., Cell], *, input_size: int = 3, hidden_size: int = 4
) -> None:
    """Checks the clauses on structure, shapes and float types, by `jax.eval_shape` alone.

    Nothing is compiled or computed, so that an experiment can afford it at every start. The
    step is held against float32 and, if x64 is on, against float64.

    Raises:
      CellContractError: For the first clause that is broken; one of 'factory', 'hash', 'init',
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
        "return s_0, for instance jnp.zeros(hidden_size)",
    )
    _check_floating("initial_carry", carry)
    x = jax.ShapeDtypeStruct((input_size,), "float32")
    for dtype in sorted({"float32", jnp.result_type(float).name}):
        _check_step(cell, _as_type((params, carry, x), dtype), hidden_size)


def build(factory: Callable[..., Cell], input_size: int, hidden_size: int) -> Cell:
    """The factory's cell, if it is one and hashable.

    Raises:
      CellContractError: If it is not; what the factory itself raises passes through.
    """
    try:
        inspect.signature(factory).bind(input_size, hidden_size)
    except TypeError as error:
        require(
            False,
            "factory",
            "a factory to be called as factory(input_size, hidden_size)",
            f"{inspect.signature(factory)} ({error})",
            "give its further arguments defaults",
        )
    cell = factory(input_size, hidden_size)
    mend = "return gradflow.Cell(init, step, initial_carry, ...) from the factory"
    require(isinstance(cell, Cell), "factory", "a gradflow.Cell", type(cell).__name__, mend)
    try:
        hash(cell)
    except TypeError as error:
        mend = "make init, step, initial_carry, hidden and gates plain functions"
        require(False, "hash", "a cell of hashable functions", error, mend)
    return cell


def require(holds: bool, clause: str, expected: str, got: object, mend: str) -> None:
    """Raises the error of a clause that does not hold.

    Raises:
      CellContractError: With the clause's name, what is expected, what came and the mend.
    """
    if not holds:
        raise CellContractError(f"clause {clause!r}: {expected} is expected, got {got}; {mend}")


def attempt(clause: str, call: str, function: Callable[..., Any], *args: Any) -> Any:
    """What the function returns; if it raises, that is the clause's error.

    Raises:
      CellContractError: If it raises, with what it raised as the cause.
    """
    try:
        return function(*args)
    except Exception as error:
        raise CellContractError(
            f"clause {clause!r}: {call} is expected to return under JAX's tracing, "
            f"got {type(error).__name__}: {error}; if it runs without, use jax.numpy alone in it"
        ) from error


def _check_floating(clause: str, tree: Any) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        require(
            jnp.issubdtype(leaf.dtype, jnp.floating),
            clause,
            "a pytree of floating arrays",
            f"{leaf.dtype} at {jax.tree_util.keystr(path) or 'its root'}",
            "make it floating: what is not has no gradient",
        )


def _as_type(tree: Any, dtype: str) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), tree)


def _check_step(cell: Cell, before: tuple[Any, Any, Any], hidden_size: int) -> None:
    _, carry, x = before
    call = "step(params, carry, x)"
    pair = attempt("step", call, jax.eval_shape, cell.step, *before)
    is_pair = isinstance(pair, tuple) and len(pair) == 2 and hasattr(pair[1], "shape")
    require(is_pair, "step", f"a pair (carry, h) from {call}", pair, "return carry, h")
    new, h = pair
    mend = "return a carry like the one that was given; broadcast nothing"
    require(_shapes(new) == _shapes(carry), "carry", f"a new carry like {carry}", new, mend)
    require(
        {leaf.dtype for leaf in jax.tree.leaves(pair)} == {x.dtype},
        "dtype",
        f"{x.dtype} from a step on {x.dtype}",
        pair,
        "give constants the type of the carry, for instance jnp.zeros_like(h) for jnp.zeros(n)",
    )
    hidden = attempt("hidden", "hidden(carry)", jax.eval_shape, cell.hidden, new)
    is_h = getattr(hidden, "shape", None) == h.shape and len(h.shape) == 1
    mend = "return hidden(new carry) as h, of one axis"
    require(is_h, "hidden", f"a vector h like the step's, {h},", hidden, mend)
    if cell.gates is not None:
        call = "gates(params, carry, x)"
        gates = attempt("gates", call, jax.eval_shape, cell.gates, *before)
        _check_gates(gates, {h.shape, (hidden_size,)})


def _shapes(tree: Any) -> tuple[Any, list[tuple[int, ...]]]:
    return jax.tree.structure(tree), [leaf.shape for leaf in jax.tree.leaves(tree)]


def _check_gates(gates: Any, shapes: set[tuple[int, ...]]) -> None:
    is_mapping = isinstance(gates, Mapping) and all(isinstance(name, str) for name in gates)
    mend = 'return a dict such as {"f": f}'
    require(is_mapping, "gates", "a mapping from gates' names to arrays", gates, mend)
    for name, gate in gates.items():
        require(
            getattr(gate, "shape", None) in shapes and jnp.issubdtype(gate.dtype, jnp.floating),
            "gates",
            "a floating vector of shape (hidden,) for each gate",
            f"{gate} for {name!r}",
            "return each gate's activation by unit",
        )
