"""The units of work of a run with a record: each is computed once and stored."""

import atexit
import functools
import logging
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import jax

from gradflow.processes import from_first, is_first
from gradflow.study.config import digest, sanitise
from gradflow.study.folder import PARTS, UNITS

if TYPE_CHECKING:
    import xarray

    from gradflow.study.record import Record

SECONDS, NUM_DEVICES = "seconds", "num_devices"
"""The attributes of a stored unit that hold how long it took, and on how many devices."""

_LOG = logging.getLogger(__name__)


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
        num_devices = int(dataset.attrs.pop(NUM_DEVICES, jax.device_count()))
        if self.record.reused > reused:
            self.record.reused_seconds += seconds
            self._report_devices(num_devices)
        return dataset

    def folder(self, name: str, /) -> Path:
        """Makes the folder of a unit; it lasts until the run is overwritten.

        It is the folder of the first process. What another writes goes to a temporary one.
        """
        from_first(self.record.begin)
        folder = (self.record.folder if is_first() else _temporary()) / UNITS / self._stem(name)
        from_first(partial(folder.mkdir, parents=True, exist_ok=True))
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _report_devices(self, number: int) -> None:
        others = self.record.other_devices
        if number != jax.device_count() and number not in others and is_first():
            others.add(number)
            _LOG.warning(
                "Stored units of %s were computed on %d device(s), and this process has %d: its "
                "results are equal up to rounding, not bit for bit.",
                self.record.folder,
                number,
                jax.device_count(),
            )

    def _stem(self, name: str) -> str:
        return f"{sanitise(name)}-{digest(self.record.identity, name)}"


@functools.cache
def _temporary() -> Path:
    """A folder that is removed when this process ends."""
    folder = tempfile.mkdtemp(prefix="gradflow-")
    atexit.register(partial(shutil.rmtree, folder, ignore_errors=True))
    return Path(folder)


def _timed(thunk: "Callable[[], xarray.Dataset]") -> "xarray.Dataset":
    start = time.perf_counter()
    dataset = thunk()
    seconds = time.perf_counter() - start
    return dataset.assign_attrs({SECONDS: seconds, NUM_DEVICES: jax.device_count()})
