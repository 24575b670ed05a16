"""A paper, or a part of one that runs by itself."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import xarray

from gradflow import study
from gradflow.study.figure import Figure


@dataclass(frozen=True)
class Paper(study.Experiment):
    """An experiment that reproduces figures or tables of a paper.

    Attributes:
      citation: Authors, year, title, identifier.
      figures: The pictures, by the name of the original: dataset -> Figure.
      traps: What goes wrong, or differs between sources.
    """

    citation: str = ""
    figures: Mapping[str, Callable[[xarray.Dataset], Figure]] = dataclasses.field(
        default_factory=dict
    )
    traps: Sequence[str] = ()
