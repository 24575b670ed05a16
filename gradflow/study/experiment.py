"""An experiment: a value that names its parts."""

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from gradflow.spec import check_name
from gradflow.study.claims import Claim
from gradflow.study.config import Config, identity
from gradflow.study.figure import style
from gradflow.study.sources import digests

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure


QUICK = "quick"
"""The attribute of the record of a run with the sizes of ``--quick``."""


@runtime_checkable
class Once(Protocol):
    """Returns a unit of work by its name: the stored dataset, or the thunk's."""

    def __call__(self, name: str, thunk: "Callable[[], xarray.Dataset]", /) -> "xarray.Dataset": ...

    def folder(self, name: str, /) -> Path | None:
        """Returns a folder for the checkpoints of a long unit; None without a record."""
        ...


class _Call:
    """Computes a unit of work and stores nothing: the `Once` of a run without a record."""

    def __call__(self, name: str, thunk: "Callable[[], xarray.Dataset]", /) -> "xarray.Dataset":
        del name  # only a stored unit is found by its name
        return thunk()

    def folder(self, name: str, /) -> Path | None:
        del name  # there is no record to have a folder in
        return None


call: Once = _Call()
"""Computes a unit of work and stores nothing: the `Once` of a run without a record."""


class Picture(NamedTuple):
    """One picture of the committed gallery.

    Attributes:
      flags: The flags of the run that it shows.
      files: The data files that the run reads, relative to the root of the checkout.
    """

    flags: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


def is_quick(dataset: "xarray.Dataset") -> bool:
    """Returns whether a record is of a run with the sizes of ``--quick``."""
    return bool(dataset.attrs.get(QUICK, False))


def no_summary(dataset: "xarray.Dataset") -> str:
    """Writes nothing: the summary of an experiment whose claims say everything."""
    del dataset
    return ""


def no_files(config: Config) -> Sequence[str]:
    """Names no file: those of an experiment whose configuration spells out the paths of all."""
    del config
    return ()


def no_claims(dataset: "xarray.Dataset") -> list[Claim]:
    """Claims nothing."""
    del dataset
    return []


def no_documents(dataset: "xarray.Dataset", environment: Mapping[str, Any]) -> dict[str, bytes]:
    """Writes no file beside the record's own."""
    del dataset, environment
    return {}


def check_docstrings() -> None:
    """Refuses a Python that removes docstrings: titles and help are taken from them.

    Raises:
      ValueError: If this Python was started with -OO, or by PYTHONOPTIMIZE=2.
    """
    if sys.flags.optimize > 1:
        raise ValueError(
            "Expected Python with docstrings, from which titles and help are taken, got "
            f"optimisation level {sys.flags.optimize}. Remove -OO, or unset PYTHONOPTIMIZE."
        )


@dataclass(frozen=True)
class Experiment:
    """An experiment: what it computes, draws and claims.

    Attributes:
      name: One word, the name of its file.
      config: The dataclass of its configuration, a `Config`.
      run: (config, once) -> Dataset, pure.
      figure: dataset -> Figure, pure.
      files: config -> the paths of files and folders that it reads besides those that the values
        of the configuration spell out, such as the files in a ``data_dir``, and specs of cells in
        such files. A run counts as finished only as long as the contents of its files are the same.
      summary: dataset -> the lines that are printed at the end of a run.
      claims: dataset -> its claims with their verdicts.
      documents: (dataset, environment) -> the contents of further files of the record, by name.
      section: The section of the tables of studies that it belongs to.
      order: Its place in the section; studies of one order are sorted by name.
      gallery: Its pictures in the committed gallery, by the name of their files.
      quick: The defaults under ``--quick``, by field: a small run, in seconds.
      full: The defaults under ``--full``, by field: as large as the question deserves. An
        experiment without any has no such form.
      doc: The docstring of its file; the first line is the title of the record.

    Raises:
      ValueError: If ``quick`` or ``full`` names a field that the configuration does not have.
    """

    name: str
    config: type[Config]
    run: "Callable[[Any, Once], xarray.Dataset]"
    figure: "Callable[[xarray.Dataset], Figure]"
    files: Callable[[Any], Sequence[str]] = no_files
    summary: "Callable[[xarray.Dataset], str]" = no_summary
    claims: "Callable[[xarray.Dataset], list[Claim]]" = no_claims
    documents: "Callable[[xarray.Dataset, Mapping[str, Any]], Mapping[str, bytes]]" = no_documents
    section: str = ""
    order: int = 100
    gallery: Mapping[str, Picture] = dataclasses.field(default_factory=dict)
    quick: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    full: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    doc: str | None = None

    def __post_init__(self) -> None:
        names = [one.name for one in dataclasses.fields(self.config)]
        for form in ("quick", "full"):
            for name in getattr(self, form):
                check_name(f"field of the configuration in {form}", name, names)

    @property
    def title(self) -> str:
        """The first line of the docstring; the name of an experiment without one."""
        return next(iter((self.doc or "").strip().splitlines()), self.name)

    def resolve(
        self, given: Mapping[str, Any], *, quick: bool = False, full: bool = False
    ) -> Config:
        """Builds the configuration from the given fields, the form's, and the defaults."""
        form = {**(self.quick if quick else {}), **(self.full if full else {})}
        return self.config(**{**form, **given})

    def is_quick(self, config: Config, *, asked: bool) -> bool:
        """Returns whether a run has the sizes of ``--quick``.

        Args:
          config: The configuration of the run.
          asked: Whether ``--quick`` was given: then one of its sizes is enough, else all must be
            there.
        """
        default = self.resolve({})
        small = {k: v for k, v in self.quick.items() if getattr(default, k) != v}
        same = [getattr(config, name) == value for name, value in small.items()]
        return any(same) if asked else bool(same) and all(same)

    def identity(self, config: Config) -> dict[str, Any]:
        """Returns what distinguishes a run: name, configuration, and digests of the files read."""
        return identity(self.name, config, digests(config, self.files(config)))

    def report(self, dataset: "xarray.Dataset") -> str:
        """Writes the end of a run: the summary, then each claim with its verdict.

        A quick run is too small for a verdict, except on claims that hold at every size.
        """
        lines = [claim.line(quick=is_quick(dataset)) for claim in self.claims(dataset)]
        return "\n".join(filter(None, [self.summary(dataset), *lines]))

    def draw(self, dataset: "xarray.Dataset") -> "Figure":
        """Draws the figure in the house's style."""
        with style():
            return self.figure(dataset)
