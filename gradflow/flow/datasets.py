"""Measurements of a cell as a dataset with named dimensions and units."""

import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradflow.cell import Cell, Params
from gradflow.devices import map_runs
from gradflow.flow.catalogue import CATALOGUE, DIMENSIONS
from gradflow.flow.interned import interned
from gradflow.flow.measurement import Measurement, Variable
from gradflow.numerics.precision import Precision, computing_in, to_precision
from gradflow.spec import check_name
from gradflow.unroll import check_is_cell

if TYPE_CHECKING:
    import xarray

_GIVEN = ("cell", "params", "inputs")


def measure(
    cell: Cell,
    params: Params,
    inputs: Float[Array, "*runs steps input"],
    *,
    what: Iterable[str] = ("log_norms",),
    runs: bool = False,
    precision: Precision = "float64",
    **options: Any,
) -> "xarray.Dataset":
    """Measures the gradient flow of a cell and names every dimension and unit of the result.

    ::

        gradflow.measure(cell, params, inputs, what=["log_norms", "gates"], source="c")

    Args:
      cell: The cell.
      params: Its parameters.
      inputs: x_1 ... x_T of one sequence.
      what: Names of measurements from `gradflow.flow.CATALOGUE`.
      runs: Whether each leaf of params, and the inputs, have a leading axis of runs: several seeds,
        measured in one program and distributed over devices. It becomes the dimension ``run``.
      precision: ``float64`` or ``float32``: what is computed in, whatever the types of the
        arguments and JAX's global settings, which stay as they are.
      **options: The measurements' own options, such as source, target, norm, burn_in, loss or
        lags. Each goes to those of the measurements that take it.

    Returns:
      A dataset with the variables of each measurement, as the catalogue lists them, and the
      attribute ``precision``. Where a result
      is a pytree, its leaves lie side by side along the last dimension of the variable, and the
      coordinate names the leaf. (Not for `jax.jit` or `jax.vmap`.)

    Raises:
      TypeError: If the cell is none.
      ValueError: If a name, an option or the precision is unknown, or an option that is needed is
        not given, and whatever the measurements raise.
    """
    import xarray

    entries = {name: _entry(name) for name in what}
    chosen = {name: _options_of(name, entry, options) for name, entry in entries.items()}
    unknown = set(options) - {key for own in chosen.values() for key in own}
    if unknown:
        raise ValueError(
            f"Expected options of {', '.join(entries)}, got {', '.join(sorted(unknown))}. "
            "Remove them, or measure what takes them."
        )
    check_is_cell(cell)
    with computing_in(precision):
        arguments = jax.tree.map(jnp.asarray, to_precision((params, inputs), precision))
        chosen = to_precision(chosen, precision)
        found = jax.device_get(_measured(cell, entries, chosen, runs)(*arguments))
    lead = ("run",) if runs else ()
    arrays = {}
    for name, entry in entries.items():
        for variable, piece in zip(entry.variables, _pieces(entry, found[name]), strict=True):
            arrays[variable.name] = _array(variable, lead, piece, entry.equation)
    dataset = xarray.Dataset(arrays, attrs={"precision": precision})
    return dataset.assign_coords(_coordinates(dataset, options))


def _entry(name: str) -> Measurement:
    check_name("measurement", name, CATALOGUE)
    return CATALOGUE[name]


def _options_of(name: str, entry: Measurement, options: dict[str, Any]) -> dict[str, Any]:
    """The options that a measurement takes."""
    taken = inspect.signature(entry.function).parameters.values()
    missing = [
        one.name
        for one in taken
        if one.default is one.empty
        and one.name not in (*_GIVEN, *options)
        and one.kind != one.VAR_KEYWORD
    ]
    if missing:
        raise ValueError(f"Expected {missing[0]}=... for {name}, got none. Give it to measure.")
    names = {one.name for one in taken if one.name not in _GIVEN}
    return {key: value for key, value in options.items() if key in names}


def _measured(
    cell: Cell, entries: dict[str, Measurement], options: dict[str, dict], runs: bool
) -> Callable[[Params, Array], dict[str, Any]]:
    """The measurements as a function of parameters and inputs."""
    if not runs:
        return partial(_each, cell, entries, options)
    named = tuple((name, tuple(given.items())) for name, given in options.items())
    try:
        return _program(interned(cell), named)
    except TypeError:  # an option that is not hashable, such as a list of lags
        return _program.__wrapped__(cell, named)


@functools.lru_cache(maxsize=32)
def _program(cell: Cell, named: tuple[tuple[str, tuple], ...]) -> Callable[..., dict[str, Any]]:
    """The measurements of many runs, compiled, by their names and options."""
    options = {name: dict(given) for name, given in named}
    entries = {name: CATALOGUE[name] for name in options}
    return jax.jit(map_runs(partial(_each, cell, entries, options)))


def _each(
    cell: Cell,
    entries: dict[str, Measurement],
    options: dict[str, dict],
    params: Params,
    inputs: Array,
) -> dict[str, Any]:
    return {
        name: entries[name](cell=cell, params=params, inputs=inputs, **options[name])
        for name in _with_progress(list(entries))
    }


def _with_progress(names: Sequence[str]) -> Iterable[str]:
    """Shows the progress after two seconds, on a terminal or in a notebook."""
    if len(names) < 2 or not (sys.stderr.isatty() or "ipykernel" in sys.modules):
        return names
    from tqdm import tqdm

    return tqdm(names, desc="measurements", delay=2, leave=False)


def _pieces(entry: Measurement, result: Any) -> tuple:
    return tuple(result) if len(entry.variables) > 1 else (result,)


def _array(
    variable: Variable, lead: tuple[str, ...], piece: Any, equation: str
) -> "xarray.DataArray":
    import xarray

    dims = (*lead, *variable.dims)
    attrs = {"units": variable.units, "long_name": equation}
    if not variable.by_leaf:
        return xarray.DataArray(np.asarray(piece), dims=dims, attrs=attrs)
    leaves, names = [], []
    for path, leaf in jax.tree_util.tree_leaves_with_path(piece):
        leaves.append(np.reshape(leaf, (*np.shape(leaf)[: len(dims) - 1], -1)))
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        names += [name] * leaves[-1].shape[-1]
    array = np.concatenate(leaves, axis=-1)
    return xarray.DataArray(array, dims=dims, coords={dims[-1]: names}, attrs=attrs)


def _coordinates(dataset: "xarray.Dataset", options: dict[str, Any]) -> dict[str, tuple]:
    def values(name: str, size: int) -> np.ndarray:
        lags = options.get("lags") if name == "at_lag" else None
        return np.arange(size) + DIMENSIONS[name][0] if lags is None else np.asarray(lags)

    return {
        str(name): (name, values(str(name), size), {"units": DIMENSIONS[str(name)][1]})
        for name, size in dataset.sizes.items()
        if name in DIMENSIONS
    }
