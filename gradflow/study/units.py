"""The units of work of a run with a record: each is computed once and stored."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gradflow.study.config import digest, sanitise

if TYPE_CHECKING:
    import xarray

    from gradflow.study.record import Record

PARTS, UNITS = "parts", "units"
"""The folders of stored units, and of what long units keep while they run."""

SECONDS = "seconds"
"""The attribute of a stored unit that holds how long it took."""


class Units:
    """The `Once` of a run with a record."""

    def __init__(self, record: "Record") -> None:
        self.record = record

    def __call__(self, name: str, thunk: "Callable[[], xarray.Dataset]", /) -> "xarray.Dataset":
        """Returns the unit of work of that name: the stored one, or computed and stored.

        Raises:
          ValueError: If the run has had a unit of that name.
        """
        if name in self.record.units:
            raise ValueError(
                f"Expected a name for each unit of work, got {name!r} twice in one run. Put "
                "everything that the unit depends on into its name."
            )
        self.record.units.add(name)
        reused = self.record.reused
        dataset = self.record.keep(f"{PARTS}/{self._stem(name)}.nc", partial(_timed, thunk))
        seconds = dataset.attrs.pop(SECONDS, 0.0)
        if self.record.reused > reused:
            self.record.reused_seconds += seconds
        return dataset

    def folder(self, name: str, /) -> Path:
        """Makes the folder of a unit; it lasts until the run is overwritten."""
        self.record.begin()
        folder = self.record.folder / UNITS / self._stem(name)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _stem(self, name: str) -> str:
        return f"{sanitise(name)}-{digest(self.record.identity, name)}"


def _timed(thunk: "Callable[[], xarray.Dataset]") -> "xarray.Dataset":
    start = time.perf_counter()
    dataset = thunk()
    return dataset.assign_attrs({SECONDS: time.perf_counter() - start})
