"""The folder that a run is recorded in: resumable, and whole or marked as not finished.

::

    config.json   which run this is, first
    parts/        the finished units of a run that is not finished
    units/        what long units keep, such as checkpoints; a folder each
    params/       trained parameters, a file each
    env.json      where and how
    result.nc     what was measured
    figure.pdf    figure.png
    DONE          the mark of a finished run, last
"""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradflow.study.config import Config, differences, digest, identity, label
from gradflow.study.store import plain, read_dataset, write_bytes, write_dataset, write_json
from gradflow.study.units import PARTS, UNITS, Units

if TYPE_CHECKING:
    import xarray

CONFIG, RESULT, ENVIRONMENT, DONE = "config.json", "result.nc", "env.json", "DONE"
PARAMS = "params"
# In the order of removal: without its marks first, and nameable as a run of ours until the end.
_FILES = (DONE, ENVIRONMENT, "figure.pdf", "figure.png", RESULT, CONFIG)
_FIX = "Choose another --workdir"


def default_workdir(name: str, config: Config) -> Path:
    """The folder of a run that is given none: the same one for the same configuration."""
    return Path("results", name, f"{label(config)}-{digest(identity(name, config))}")


@dataclass
class Record:
    """The folder of one run.

    Attributes:
      folder: Where it is; it need not exist.
      identity: The experiment's name and its configuration.
      overwrite: Whether to ignore, and to remove, what an earlier run left there.
      reused: How many stored datasets it has reused.
      reused_seconds: How long the units of these took, in the processes that computed them.
      units: The names of the units of work that it has asked for.
    """

    folder: Path
    identity: Mapping[str, Any]
    overwrite: bool = False
    reused: int = 0
    reused_seconds: float = 0.0
    units: set[str] = field(default_factory=set)

    def check(self) -> None:
        """Checks before any work that the run can be recorded in the folder.

        Raises:
          ValueError: If there is another run, or files that are no run of ours.
          OSError: If the folder cannot be written to.
        """
        stored = _stored_identity(self.folder)
        wanted = plain(self.identity)
        if stored and not self.overwrite and stored != wanted:
            found = differences(
                {"experiment": stored["experiment"], **stored["config"]},
                {"experiment": wanted["experiment"], **wanted["config"]},
            )
            raise ValueError(
                f"{self.folder} holds a run of another configuration: {', '.join(found)}. "
                f"{_FIX}, or replace that run with --overwrite."
            )
        _check_writable(self.folder)

    @property
    def done(self) -> bool:
        """Whether the run is finished, and counts."""
        return not self.overwrite and (self.folder / DONE).exists()

    @property
    def once(self) -> "Units":
        """What gives the run its units of work."""
        return Units(self)

    def result(self, thunk: "Callable[[], xarray.Dataset]") -> "xarray.Dataset":
        """Gives the result, computed and stored unless it already is."""
        return self.keep(RESULT, thunk)

    def keep(self, name: str, thunk: "Callable[[], xarray.Dataset]") -> "xarray.Dataset":
        """Gives the dataset in the file of that name, computed and stored unless it is there."""
        path = self.folder / name
        with contextlib.suppress(OSError):  # not there, or damaged: to be computed
            if not self.overwrite:
                stored = read_dataset(path)
                self.reused += 1
                return stored
        dataset = thunk()
        self.begin()
        write_dataset(path, dataset)
        # A file may hold an array in another form: what is read is the same in every run.
        return read_dataset(path)

    def begin(self) -> None:
        """Writes which run this is, before anything else is written to the folder."""
        if self.overwrite:
            _clear(self.folder)
            self.overwrite = False
        if not (self.folder / CONFIG).exists():
            write_json(self.folder / CONFIG, self.identity)

    def write_environment(self, environment: Mapping[str, Any]) -> None:
        """Writes where and how the result came about."""
        self.begin()
        write_json(self.folder / ENVIRONMENT, environment)

    def finish(self) -> None:
        """Marks the run as finished, and removes what only an unfinished one needs.

        Raises:
          OSError: If the record has been removed since it was written.
        """
        if lost := [name for name in (CONFIG, RESULT) if not (self.folder / name).exists()]:
            raise OSError(
                f"Expected {', '.join(lost)} in {self.folder}, but it has been removed during the "
                "run. Run it again in another --workdir."
            )
        write_bytes(self.folder / DONE, b"")
        _clear_parts(self.folder)


def params_folder(unit: Path) -> Path:
    """Returns the folder for trained parameters of the record that a unit's folder lies in."""
    return unit.parents[1] / PARAMS


def read_environment(folder: Path) -> dict[str, Any]:
    """Reads where and how a result came about; nothing if that was not recorded."""
    path = folder / ENVIRONMENT
    return json.loads(path.read_text()) if path.exists() else {}


def _stored_identity(folder: Path) -> dict[str, Any] | None:
    found = [name for name in (*_FILES, PARTS, UNITS, PARAMS) if (folder / name).exists()]
    if not found:
        return None
    with contextlib.suppress(OSError, ValueError):
        stored = json.loads((folder / CONFIG).read_text())
        if isinstance(stored, dict) and stored.keys() == {"experiment", "config"}:
            return stored
    raise ValueError(
        f"Expected {folder} to hold a run or nothing, got {', '.join(found)} and no {CONFIG} of a "
        f"run. {_FIX}."
    )


def _check_writable(folder: Path) -> None:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryDirectory(dir=existing):
            pass
    except OSError as error:
        raise OSError(
            f"{folder} cannot be written, {existing}: {error.strerror}. {_FIX}."
        ) from None


def _clear(folder: Path) -> None:
    for name in _FILES[:-1]:
        (folder / name).unlink(missing_ok=True)
    _clear_parts(folder)
    for name in (UNITS, PARAMS):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / CONFIG).unlink(missing_ok=True)


def _clear_parts(folder: Path) -> None:
    """Removes the stored units and what a killed process was writing, and no other file."""
    drafts = [path for name in _FILES for path in folder.glob(f".{name}.*.tmp")]
    for path in [*drafts, *folder.glob(f"{PARTS}/*.nc"), *folder.glob(f"{PARTS}/.*.tmp")]:
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # there are none, or a file that is not ours
        (folder / PARTS).rmdir()
