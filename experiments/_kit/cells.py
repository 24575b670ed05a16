"""From the flags of a study to a cell."""

import bisect
from collections.abc import Callable
from typing import TypeAlias

import jax

from gradflow import Cell
from gradflow.cell import param_shapes
from gradflow.cells import resolve
from gradflow.presets import PRESETS, with_preset
from gradflow.spec import parse_spec, split_specs
from gradflow.structure import check_structure

Factory: TypeAlias = Callable[[int, int], Cell]
"""(input_size, hidden_size) -> the cell."""


def specs(cells: str, example: str = "lstm") -> list[str]:
    """Splits the value of a flag into the specs of cells, at least one.

    Raises:
      ValueError: If there is none.
    """
    found = split_specs(cells)
    if not found:
        raise ValueError(f"Expected the name of a cell, got {cells!r}. Try {example}.")
    return found


def factory(spec: str, *, init: str | None = None, gain: float | None = None) -> Factory:
    """Gives the factory of the cell that a spec names, with its initialisation set.

    A cell of a user's own is checked whenever it is made, at the sizes of the run; the tests of the
    package check its own cells.

    Args:
      spec: A name with options or without, or a file's or module's factory.
      init: The recurrent initialiser; or the name of a framework whose initialisation is taken.
      gain: The gain of the recurrent initialiser, orthogonal by default.

    Raises:
      ValueError: If the cell is unknown, or a framework is given a gain; and, when the factory is
        called, if the cell breaks the contract at these sizes.
    """
    if init in PRESETS and gain is not None:
        raise ValueError(
            f"Expected --gain with an initialiser, got it with the framework {init!r}. "
            "Remove --gain or --init."
        )
    plain, recurrent = resolve(spec), _with_gain(init, gain)

    def unchecked(input_size: int, hidden_size: int) -> Cell:
        if init in PRESETS:
            return with_preset(plain(input_size, hidden_size), init)
        given = {} if recurrent is None else {"recurrent_init": recurrent}
        return plain(input_size, hidden_size, **given)

    def checked(input_size: int, hidden_size: int) -> Cell:
        check_structure(unchecked, input_size=input_size, hidden_size=hidden_size)
        return unchecked(input_size, hidden_size)

    return checked if ":" in spec else unchecked


def size_with(make: Factory, input_size: int, num_weights: int) -> int:
    """Finds the hidden size whose cell has the number of weights nearest to the given one.

    The number of weights grows with the hidden size.
    """

    def weights(hidden_size: int) -> int:
        leaves = jax.tree.leaves(param_shapes(make(input_size, hidden_size)))
        return sum(leaf.size for leaf in leaves)

    larger = 1
    while weights(larger) < num_weights:
        larger *= 2
    found = range(max(1, larger // 2), larger + 1)
    place = bisect.bisect_left(found, num_weights, key=weights)
    near = found[max(0, place - 1) : place + 1]
    return min(near, key=lambda size: abs(weights(size) - num_weights))


def _with_gain(init: str | None, gain: float | None) -> str | None:
    """The spec of the initialiser with the gain among its options."""
    if gain is None:
        return init
    name, options = parse_spec(init or "orthogonal")
    options = ", ".join(f"{k}={v!r}" for k, v in {**options, "gain": gain}.items())
    return f"{name}({options})"
