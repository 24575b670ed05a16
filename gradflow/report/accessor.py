"""Datasets of `gradflow.measure` plot themselves: ``dataset.flow.plot()``."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import xarray

from gradflow.report.drawing import draw_page, measured
from gradflow.spec import check_name
from gradflow.study.figure import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "flow"
"""The attribute of a dataset by which the accessor is found."""


class FlowAccessor:
    """What a dataset of `gradflow.measure` can do as ``dataset.flow``.

    Args:
      dataset: What was measured.
    """

    def __init__(self, dataset: xarray.Dataset) -> None:
        self._dataset = dataset

    @property
    def measurements(self) -> list[str]:
        """The names of the measurements in the dataset, as in `gradflow.flow.CATALOGUE`."""
        return measured(self._dataset)

    def plot(self, what: Iterable[str] | None = None) -> "Figure":
        """Draws a panel for each measurement, as the catalogue says: curves, a map, a spectrum.

        Log norms are drawn as log10; over runs there is the median and the band from 10 to 90 %.
        A notebook shows the figure that is returned, and ``.savefig(path)`` writes it.

        Args:
          what: Names of measurements; by default all that the dataset has.

        Raises:
          ValueError: If the dataset has no measurement, or none of a name.
        """
        names = self.measurements if what is None else list(what)
        for name in names:
            check_name("measurement of this dataset", name, self.measurements)
        if not names:
            raise ValueError(
                f"Expected a dataset of gradflow.measure, got the variables "
                f"{list(self._dataset.data_vars)}. Measure with gradflow.measure(..., what=[...])."
            )
        runs = self._dataset.sizes.get("run", 1)
        with style():
            return draw_page(
                self._dataset, names, f"median and 10–90 % over {runs} runs" if runs > 1 else ""
            )


# A second registration, such as that of a module that is loaded again, would warn.
if not hasattr(xarray.Dataset, NAME):
    xarray.register_dataset_accessor(NAME)(FlowAccessor)
