"""How a seed becomes parameters and inputs, and how every run is measured: one way for all studies.

The runs of ``--seed=s`` have the keys ``split(key(s), num_seeds)``. A study that trains hands these
keys to the training driver. A study that measures initialises its cells from the keys that the
driver derives for its cells. So one seed gives one network in all studies, for one cell, one size
and one precision.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray

from gradflow import Cell, Params, study
from gradflow.cell import Key
from gradflow.devices import map_runs
from gradflow.tasks.files import axes_of_npy
from gradflow.tasks.inputs import make_inputs

INPUTS = 2**32 - 1
"""The number folded into the seed's key for the inputs.

``fold_in(key, i)`` equals ``split(key, n)[i]``, so that a small number would be the key of a run.
"""

FIRST_STREAM = 16
"""The number folded into a run's key for the first stream of a study's own.

The training driver uses the numbers below: 0 for the parameters, then data, evaluation and noise.
"""


AXES = "inputs_read_as"
"""The attribute of a record with the axes of an array of inputs."""


def keys(config: study.Config, number: int | None = None) -> Key:
    """Gives the key of each run; more runs than seeds begin with the same keys."""
    return jax.random.split(jax.random.key(config.seed), number or config.num_seeds)


def cell_key(key: Key) -> Key:
    """Gives the key that initialises a run's cell, the one that `gradflow.train` derives for it."""
    return jax.random.split(jax.random.fold_in(key, 0))[0]


def stream(key: Key, number: int) -> Key:
    """Gives a key of a run's own for a further random choice of a study."""
    return jax.random.fold_in(key, FIRST_STREAM + number)


def initialise(cell: Cell, keys: Key) -> Params:
    """Initialises the parameters of each run, with an axis of runs in front."""

    def one(key: Key) -> Params:
        return cell.init(cell_key(key))

    return jax.jit(partial(jax.lax.map, one))(keys)


def initialise_each(cells: Sequence[Cell], keys: Key) -> Params:
    """Initialises several cells from the same keys, with axes (cell, key) in front.

    The cells differ in their initialisers alone, so that their parameters have the same shapes.
    """

    def one(key: Key) -> Params:
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *(cell.init(key) for cell in cells))

    return jax.jit(jax.vmap(one, out_axes=1))(keys)


def inputs(
    config: Any,
    *,
    spec: str | None = None,
    num_sequences: int | None = None,
    num_steps: int | None = None,
    input_size: int | None = None,
    stream: int = 0,
) -> jax.Array:
    """Makes the input sequences of all runs, of shape (runs, T, input).

    What is not given is taken from the configuration: ``inputs`` (gaussian in a study without that
    field), ``num_sequences`` for each seed (1 without that field), ``num_steps``, ``input_size``.

    Args:
      stream: Tells independent sets of sequences of one study apart.
    """
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), INPUTS), stream)
    each = getattr(config, "num_sequences", 1)
    return make_inputs(
        spec or getattr(config, "inputs", "gaussian"),
        key,
        num_sequences=num_sequences or config.num_seeds * each,
        num_steps=num_steps or config.num_steps,
        input_size=config.input_size if input_size is None else input_size,
    )


def axes_read(config: Any) -> dict[str, str]:
    """Says for a record which axis of an array in a file was read as what."""
    kind, _, place = config.inputs.partition(":")
    return {AXES: axes_of_npy(place)} if kind == "npy" else {}


def axes_note(dataset: xarray.Dataset) -> list[str]:
    """Gives the line of a summary that says so; none for other inputs."""
    found = dataset.attrs.get(AXES)
    return [f"The inputs were read as {found}."] if found else []


def repeated(params: Params, number: int) -> Params:
    """Repeats the parameters of each run, once for each of its sequences."""
    return jax.tree.map(lambda leaf: jnp.repeat(leaf, number, axis=0), params)


def measure(function: Callable[..., Any], *arguments: Any) -> Any:
    """Applies a function to every run, in one compiled program; the results are NumPy arrays.

    Args:
      function: Of one run, such as (params, inputs) -> measurements.
      *arguments: Its arguments, with an axis of runs in front.
    """
    return jax.tree.map(np.asarray, jax.jit(map_runs(function))(*arguments))
