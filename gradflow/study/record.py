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

While a process writes to the folder, it holds the lock on it (`gradflow.locks`). Every file that is
read again has a checksum. Of several processes that run one study, the first alone reads and writes
the folder, and tells the others what it has read (`gradflow.processes`).
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradflow.locks import locked
from gradflow.paths import write_bytes
from gradflow.processes import by_first, from_first
from gradflow.study.config import Config, digest, label
from gradflow.study.folder import (
    CONFIG,
    DONE,
    ENVIRONMENT,
    PARAMS,
    RESULT,
    check_same,
    check_writable,
    clear,
    clear_parts,
    stored_identity,
)
from gradflow.study.store import (
    plain,
    read_dataset,
    read_verified,
    write_dataset,
    write_verified,
)
from gradflow.study.units import Units

if TYPE_CHECKING:
    import xarray


def default_workdir(config: Config, identity: Mapping[str, Any]) -> Path:
    """The folder of a run that is given none: the same one for the same configuration and files."""
    return Path("results", identity["experiment"], f"{label(config)}-{digest(identity)}")


@dataclass
class Record:
    """The folder of one run.

    Attributes:
      folder: Where it is; it need not exist.
      identity: The experiment's name, its configuration, and the digests of the files it reads.
      overwrite: Whether to ignore, and to remove, what an earlier run left there.
      quick: Whether the run was asked for with ``--quick``.
      reused: How many stored datasets it has reused.
      reused_seconds: How long the units of these took, in the processes that computed them.
      units: The names of the units of work that it has asked for.
      other_devices: The numbers of devices of processes that computed these datasets, where they
        differ from that of this one.
    """

    folder: Path
    identity: Mapping[str, Any]
    overwrite: bool = False
    quick: bool = False
    reused: int = 0
    reused_seconds: float = 0.0
    units: set[str] = field(default_factory=set)
    other_devices: set[int] = field(default_factory=set)

    @by_first
    def check(self) -> None:
        """Checks before any work that the run can be recorded in the folder.

        Raises:
          ValueError: If there is another run, a run that read other contents of its files, a
            damaged one, or files that are no run of ours.
          OSError: If the folder cannot be written to.
        """
        stored = stored_identity(self.folder, self.overwrite)
        if stored and not self.overwrite:
            check_same(self.folder, stored, plain(self.identity))
        check_writable(self.folder)

    @property
    @by_first
    def done(self) -> bool:
        """Whether the run is finished, and counts."""
        return not self.overwrite and (self.folder / DONE).exists()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the lock on the folder within the block.

        Raises:
          OSError: If another process holds it, or the folder cannot be written to.
        """
        with contextlib.ExitStack() as stack:
            from_first(lambda: stack.enter_context(locked(self.folder)))
            yield

    @property
    def once(self) -> "Units":
        """What gives the run its units of work."""
        return Units(self)

    def result(self, thunk: "Callable[[], xarray.Dataset]") -> "xarray.Dataset":
        """Gives the result, computed and stored unless it already is."""
        return self.keep(RESULT, thunk)

    def keep(self, name: str, thunk: "Callable[[], xarray.Dataset]") -> "xarray.Dataset":
        """Gives the dataset in the file of that name, computed and stored unless it is there."""
        stored = self._stored(name)
        if stored is not None:
            self.reused += 1
            return stored
        return self._store(name, thunk())

    @by_first
    def _stored(self, name: str) -> "xarray.Dataset | None":
        """Reads a dataset; None if it is not there, or damaged, and has to be computed."""
        with contextlib.suppress(OSError):
            return None if self.overwrite else read_dataset(self.folder / name)

    @by_first
    def _store(self, name: str, dataset: "xarray.Dataset") -> "xarray.Dataset":
        self.begin()
        write_dataset(self.folder / name, dataset)
        # A file may hold an array in another form: what is read is the same in every run.
        return read_dataset(self.folder / name)

    def begin(self) -> None:
        """Writes which run this is, before anything else is written to the folder."""
        if self.overwrite:
            clear(self.folder)
            self.overwrite = False
        if not (self.folder / CONFIG).exists():
            write_verified(self.folder / CONFIG, self.identity)

    @by_first
    def write_environment(self, environment: Mapping[str, Any]) -> None:
        """Writes where and how the result came about."""
        self.begin()
        write_verified(self.folder / ENVIRONMENT, environment)

    @by_first
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
        clear_parts(self.folder)


def params_folder(unit: Path) -> Path:
    """Returns the folder for trained parameters of the record that a unit's folder lies in."""
    return unit.parents[1] / PARAMS


def read_environment(folder: Path) -> dict[str, Any]:
    """Reads where and how a result came about.

    Raises:
      FileNotFoundError: If that was not recorded.
      ValueError: If the file is damaged.
    """
    path = folder / ENVIRONMENT
    try:
        return read_verified(path)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"Expected {path} with where the result came about, got no such file. Run again with "
            "--overwrite."
        ) from None
    except ValueError as error:
        raise ValueError(f"{error} Remove that file, or run again with --overwrite.") from None
