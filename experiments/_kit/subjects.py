"""What a study measures: newly initialised cells, or trained ones from files of parameters.

The configuration has the fields ``cell``, ``params``, ``hidden_size`` and those of `runs.inputs`;
``init`` and ``gain`` where the study takes an initialisation.
"""

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from _kit import cells, runs
from gradflow import Cell, Params, flow
from gradflow.spec import split_specs

if TYPE_CHECKING:
    from gradflow.interop import Description


class Subject(NamedTuple):
    """What is measured: the factory of a cell, its size, and the file of trained parameters."""

    factory: cells.Factory
    hidden_size: int
    path: str | None = None

    def make(self, inputs: jax.Array) -> Cell:
        """Makes the cell for inputs of this width."""
        return self.factory(inputs.shape[-1], self.hidden_size)


def subjects(config: Any) -> dict[str, Subject]:
    """Gives what the flags name, by the spec of the cell; of two files of one spec by number too.

    Raises:
      ValueError: If a cell or a file is not as expected, or --params is given with flags that are
        for newly initialised cells.
    """
    if config.params is not None:
        return _trained(config)
    specs = cells.specs("lstm" if config.cell is None else config.cell)
    given = {name: getattr(config, name, None) for name in ("init", "gain")}
    make = partial(cells.factory, **given)
    return {spec: Subject(make(spec), config.hidden_size) for spec in specs}


def _trained(config: Any) -> dict[str, Subject]:
    for name in ("init", "gain"):
        if getattr(config, name, None) is not None:
            raise ValueError(
                f"--{name} applies only to newly initialised cells, but --params loads trained "
                f"ones. Remove --{name} or --params."
            )
    found = _descriptions(config)
    specs = [one.cell for one in found]
    if config.cell is not None and split_specs(config.cell) != specs:
        raise ValueError(
            f"Expected --cell to name the cells of --params, {', '.join(specs)}, got "
            f"{config.cell}. Remove --cell."
        )
    names = [f"{s} #{i}" if specs.count(s) > 1 else s for i, s in enumerate(specs, start=1)]
    return {
        name: Subject(cells.factory(one.cell), one.hidden_size, path)
        for name, one, path in zip(names, found, config.params or (), strict=True)
    }


def _descriptions(config: Any) -> "list[Description]":
    from gradflow.interop import read_description  # imports Flax, which takes half a second

    trusted = split_specs(config.cell or "")
    return [read_description(path, trusted=trusted) for path in config.params or ()]


def inputs(config: Any) -> jax.Array:
    """Makes x_1 ... x_T of every run, of shape (runs, T, input), as wide as the trained cells take.

    Raises:
      ValueError: If the cells of --params take inputs of another width.
    """
    sizes = {one.input_size for one in _descriptions(config)} if config.params else set()
    found = runs.inputs(config, input_size=min(sizes, default=config.input_size))
    if sizes and sizes != {found.shape[-1]}:
        raise ValueError(
            f"Expected inputs of the size that the cells were trained on, {sorted(sizes)}, got "
            f"{found.shape[-1]} channels of --inputs={config.inputs}. Choose the inputs that they "
            "were trained on, and cells of one size at a time."
        )
    return found


def params(config: Any, cell: Cell, path: str | None) -> Params:
    """Gives the parameters of every run, with an axis of runs in front."""
    each = getattr(config, "num_sequences", 1)
    if path is None:
        return runs.repeated(runs.initialise(cell, runs.keys(config)), each)
    from gradflow.cell import param_shapes
    from gradflow.interop import read_params

    trained = read_params(path, param_shapes(cell))
    number = config.num_seeds * each
    return runs.repeated(jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], trained), number)


def blocks(config: Any, cell: Cell, params: Params, inputs: jax.Array) -> dict[str, str]:
    """Gives the source and the target: those of the flags, or else `flow.default_block`.

    Args:
      config: The configuration, with the fields ``source`` and ``target``.
      cell: The cell.
      params: Its parameters, with an axis of runs in front.
      inputs: Those of every run.
    """
    one = jax.tree.map(lambda leaf: leaf[0], (params, inputs))
    default = flow.default_block(cell, *one)
    return {"source": config.source or default, "target": config.target or default}
