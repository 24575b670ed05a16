"""The norms of changed copies of layers, of as many copies at once as there are devices."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from gradflow.cell import Cell, Params
from gradflow.report import programs
from gradflow.report.measuring import from_lag_0, median_over_runs
from gradflow.report.programs import Call, program_of_copies
from gradflow.study import progress


class Copy(NamedTuple):
    """A changed copy of a layer, with the sequences for which its norms are measured.

    Attributes:
      cell: The cell.
      params: Makes the parameters, which are many for all copies together.
      x: The inputs, in the order in which the layer reads them.
      lengths: The number of real steps of each sequence.
    """

    cell: Cell
    params: Callable[[], Params]
    x: Float[np.ndarray, "n t input"]
    lengths: np.ndarray


Run = tuple[int, int]
"""The numbers of a copy and of one of its sequences."""


def calls(copies: Sequence[Copy]) -> list[Call]:
    """Returns one call of each program that measures the copies."""
    return [_call(copies, parts[0]) for parts in _alike(copies)]


def median_curves(copies: Sequence[Copy]) -> list[Float[np.ndarray, " lags"]]:
    """Measures the median over its sequences of log ‖∂h_T/∂h_k‖ by lag, for each copy."""
    curves = [np.full((len(copy.x), copy.x.shape[1] + 1), np.nan) for copy in copies]
    for part in progress([part for parts in _alike(copies) for part in parts], "changes"):
        program, args = _call(copies, part)
        for (number, sequence), curve in zip(part, program(*args), strict=True):
            curves[number][sequence] = curve
    return [
        median_over_runs(from_lag_0(found, copy.lengths))
        for found, copy in zip(curves, copies, strict=True)
    ]


def _alike(copies: Sequence[Copy]) -> Iterator[list[list[Run]]]:
    """Yields the runs of each program, in parts of as many runs as there are devices.

    The last part has its first run several times, for one shape is compiled.
    """
    groups: dict[Any, list[Run]] = {}
    for number, copy in enumerate(copies):
        group = groups.setdefault((copy.cell, copy.x.shape[1:]), [])
        group += [(number, sequence) for sequence in range(len(copy.x))]
    for runs in groups.values():
        size = min(len(jax.devices()), len(runs))
        parts = [runs[start : start + size] for start in range(0, len(runs), size)]
        parts[-1] += parts[-1][:1] * (size - len(parts[-1]))
        yield parts


def _call(copies: Sequence[Copy], part: Sequence[Run]) -> Call:
    """Returns the call for runs of one program."""
    params = {number: copies[number].params() for number, _ in part}
    args = [
        (params[number], copies[number].x[sequence], copies[number].lengths[sequence])
        for number, sequence in part
    ]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *args)
    return program_of_copies(programs.norms, copies[part[0][0]].cell), stacked
