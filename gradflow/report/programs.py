"""What is measured of one sequence of one layer, as functions that are compiled once a shape."""

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from gradflow import flow
from gradflow.cell import Cell, Params
from gradflow.devices import map_runs
from gradflow.flow.gates import CANDIDATES
from gradflow.unroll import unroll

FULL_MAP = (128, 256)
"""Largest carry and number of steps for which every pair of the map is measured."""

NUM_EXPONENTS = 16

USES = ("mean", "shut", "open")
"""Mean activation of a gate over its units, and the fractions of them below 0.1 and above 0.9."""


class Settings(NamedTuple):
    """What has to be known before the programs of a layer are compiled.

    Attributes:
      lags: Lags whose singular values are measured.
      rows: Steps t whose row of the map is measured, in the Frobenius norm; none for all, exactly.
    """

    lags: tuple[int, ...]
    rows: tuple[int, ...]


class Program:
    """A compiled function whose results are NumPy arrays.

    Args:
      function: A function of arrays.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._compiled = jax.jit(function)

    def __call__(self, *args: Any) -> Any:
        """Runs the function."""
        return jax.tree.map(np.array, self._compiled(*args))

    def compile(self, *args: Any) -> None:
        """Compiles the function for arguments of these shapes."""
        self._compiled.lower(*args).compile()


Call = tuple[Program, tuple[Any, ...]]
"""A program and its arguments."""


def compile_together(calls: Sequence[Call]) -> None:
    """Compiles the programs of calls on all cores, where one after the other keeps one core busy.

    Each program and shape is compiled once; the calls themselves then find it.
    """
    different = {}
    for program, args in calls:
        shapes = str(jax.tree.map(lambda leaf: (np.shape(leaf), str(leaf.dtype)), args))
        different[program, shapes] = args
    is_x64 = jnp.zeros(()).dtype == jnp.float64

    def compile_one(job: tuple[tuple[Program, str], tuple[Any, ...]]) -> None:
        (program, _), args = job
        with jax.enable_x64(is_x64):  # a setting of each thread
            program.compile(*args)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(compile_one, different.items()))


@functools.lru_cache(maxsize=256)
def program(function: Callable[..., Any], cell: Cell, *settings: Any) -> Program:
    """Makes the program of a function of (cell, *settings, params, *arrays)."""
    return Program(partial(function, cell, *settings))


@functools.lru_cache(maxsize=256)
def program_of_runs(function: Callable[..., Any], cell: Cell) -> Program:
    """Makes that of a function of (cell, params, *arrays), for arrays with an axis of runs."""

    def over_runs(params: Params, *runs: Any) -> Any:
        number = len(runs[0])
        spread = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (number, *leaf.shape)), params)
        return map_runs(partial(function, cell))(spread, *runs)

    return Program(over_runs)


@functools.lru_cache(maxsize=256)
def program_of_copies(function: Callable[..., Any], cell: Cell) -> Program:
    """Makes that of a function of (cell, params, *arrays), all with an axis of runs."""
    return Program(map_runs(partial(function, cell)))


def carry_size(cell: Cell) -> int:
    """Returns the number of entries of a cell's carry."""
    return jax.eval_shape(lambda: ravel_pytree(cell.initial_carry())[0]).size


def output_size(cell: Cell) -> int:
    """Returns the number of entries of a cell's h."""
    return jax.eval_shape(lambda: cell.hidden(cell.initial_carry())).size


def norms(
    cell: Cell, params: Params, x: Float[Array, "steps input"], length: Int[Array, ""]
) -> Float[Array, " lags"]:
    """Computes log ‖∂h_T/∂h_k‖ by lag, of which the padded steps come first, in the dtype of x."""
    return flow.log_norms(cell, params, x, lengths=length, carry=_carry(cell, x))


def in_float32(tree: Any) -> Any:
    """Returns arrays in float32, in which norms are certified to 1e-4 nats at half the cost."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree)


def _carry(cell: Cell, x: Array) -> Any:
    """s_0 in the dtype of the inputs; that of the cell has JAX's default."""
    return jax.tree.map(lambda leaf: leaf.astype(x.dtype), cell.initial_carry())


def matrices(
    cell: Cell, settings: Settings, params: Params, x: Float[Array, "steps input"]
) -> dict[str, Any]:
    """Computes the measurements that need whole matrices."""
    count = min(NUM_EXPONENTS, carry_size(cell))
    found: dict[str, Any] = {
        "values": flow.leading_singular_values(cell, params, x, settings.lags),
        "map": _map(cell, settings, params, x),
        "exponents": flow.lyapunov_exponents(cell, params, x, num_exponents=count).exponents,
        "jacobians": _step_jacobians(cell, params, x),
    }
    if has_paths(cell):
        found["paths"] = jnp.stack(flow.steps_by_path(cell, params, x))
    return found


def has_paths(cell: Cell) -> bool:
    """Whether the paths of the gradient through an LSTM are measured: for one that is small."""
    carry = jax.eval_shape(cell.initial_carry)
    is_lstm = {"h", "c"} <= set(getattr(carry, "_fields", ()))
    return is_lstm and carry.h.size == carry.c.size and carry_size(cell) <= FULL_MAP[0]


def _map(cell: Cell, settings: Settings, params: Params, x: Array) -> Float[Array, "later earlier"]:
    if not settings.rows:
        return flow.log_norm_map(cell, params, x)
    steps, earlier = len(x), jnp.arange(len(x) + 1)
    params, x = in_float32((params, x))
    given: dict[str, Any] = {"norm": "frobenius", "carry": _carry(cell, x)}

    def row(t: Array) -> Array:
        by_lag = flow.log_norms(cell, params, x, lengths=t, **given)
        return jnp.where(earlier <= t, by_lag[steps - earlier], jnp.nan)

    return jax.lax.map(row, jnp.asarray(settings.rows))


def _step_jacobians(cell: Cell, params: Params, x: Array) -> Float[Array, "2 carry carry"]:
    """∂s_t/∂s_{t-1} on the flattened carry, in the middle of the sequence and at its end."""
    carries = unroll(cell, params, x).carries

    def at(t: int) -> Array:
        flat, restore = ravel_pytree(jax.tree.map(lambda leaf: leaf[t - 1], carries))
        step = lambda s: ravel_pytree(cell.step(params, restore(s), x[t - 1])[0])[0]  # noqa: E731
        return jax.jacrev(step)(flat)

    return jnp.stack([at((len(x) + 1) // 2), at(len(x))])


def vectors(cell: Cell, params: Params, x: Array, g: Array, length: Array) -> dict[str, Any]:
    """Computes the measurements that cost no more than a backward pass.

    The loss is L = Σ_t ⟨g_t, h_t⟩, whose gradient with respect to the outputs is g.
    """
    loss = lambda outputs: jnp.sum(outputs * g)  # noqa: E731
    given: dict[str, Any] = {"cell": cell, "params": params, "inputs": x, "lengths": length}
    trajectory = unroll(cell, params, x, lengths=length)
    parts = jnp.stack(jax.tree.leaves(flow.components(loss=loss, **given)))
    found: dict[str, Any] = {
        "log_adjoint_norm": flow.log_adjoint_norms(loss=loss, source="carry", **given)[1:],
        "log_component": 0.5 * jax.nn.logsumexp(2 * parts, axis=0),
        "log_gradient_norm": _log_gradient_norm(cell, params, x, loss, length),
        "outputs": trajectory.outputs,
        "first_nonfinite": flow.first_nonfinite_step(trajectory),
    }
    if cell.gates is not None:
        gates = flow.gates(**given)
        found["gates"] = {n: _usage(a) for n, a in gates.items() if n not in CANDIDATES}
    return found


def _log_gradient_norm(cell: Cell, params: Params, x: Array, loss: Any, length: Array) -> Array:
    """log ‖∂L/∂θ‖ over all parameters; infinite where it overflows."""
    found = jax.grad(lambda p: loss(unroll(cell, p, x, lengths=length).outputs))(params)
    flat = ravel_pytree(found)[0]
    largest = jnp.max(jnp.abs(flat))
    return jnp.log(largest) + jnp.log(jnp.linalg.norm(flat / jnp.where(largest > 0, largest, 1)))


def _usage(gate: Float[Array, "steps hidden"]) -> Float[Array, "uses steps"]:
    shut, opened = (gate < 0.1).mean(axis=1), (gate > 0.9).mean(axis=1)
    return jnp.stack([gate.mean(axis=1), shut, opened])
