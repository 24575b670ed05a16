"""The command line of a sweep, and the jobs that it asks for."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args, get_origin, get_type_hints

from absl import flags

from gradflow.paths import user_path
from gradflow.spec import split_specs
from gradflow.study.config import digest, field, sanitise
from gradflow.study.experiment import Experiment
from gradflow.study.flags import Options, Request, parse
from gradflow.study.provenance import shorten
from gradflow.study.record import default_workdir

_NOT_PASSED = ("workdir", "overwrite", "nooverwrite", "launcher", "jobs", "slurm")
"""The flags that are for the sweep and not for its jobs."""

JOBS, LOGS = "jobs", "logs"
"""The folders of the records of the jobs, and of what they print."""

Axes = Mapping[str, Mapping[str, Any]]
"""The swept flags by name: each value as it is typed, and parsed."""


@dataclass(frozen=True)
class SweepOptions(Options):
    """The flags that a sweep takes besides the configuration of its study."""

    launcher: Literal["local", "slurm"] = field(
        "local", help="Where the jobs run: on the cores of this machine, or on a Slurm cluster."
    )
    jobs: int | None = field(
        None, help="Most jobs at a time; one per core if absent, on Slurm 256.", positive=True
    )
    slurm: str = field("", help="Options of sbatch, such as time=60,partition='gpu'.")
    status: bool = field(False, help="Only print the table of the jobs.")


class Job(NamedTuple):
    """One job: the run of a study with one combination of values.

    Attributes:
      point: The value of each swept flag, as it is typed.
      folder: The folder of its record.
      arguments: The arguments of the study's command.
    """

    point: Mapping[str, str]
    folder: Path
    arguments: tuple[str, ...]

    @property
    def log(self) -> Path:
        """The file that receives everything the job prints."""
        return self.folder.parents[1] / LOGS / f"{self.folder.name}.txt"


class Sweep(NamedTuple):
    """A sweep as its command line describes it."""

    options: SweepOptions
    axes: Axes
    folder: Path
    jobs: Sequence[Job]


def read_sweep(experiment: Experiment, argv: Sequence[str]) -> Sweep:
    """Reads the command line of a sweep, without the names of the program and of the study.

    A flag with several values is swept. They are separated by commas outside brackets, or by
    semicolons: in a flag whose value is itself a list, and where a value contains a comma.

    Raises:
      absl.flags.Error: For an unknown flag, a bad value, or no swept flag.
      ValueError: If the study refuses a combination of values.
      OSError: If a file that the configuration names cannot be read.
    """
    fixed, swept = _split(experiment, argv)
    request = parse(experiment, fixed, SweepOptions)
    options = cast(SweepOptions, request.options)
    if options.replot:
        raise flags.Error("A sweep draws its figure whenever it is run. Remove --replot.")
    if options.is_distributed:
        raise flags.Error(
            "A sweep runs each job in a process of its own. Remove the flags of several processes."
        )
    axes = {name: _parsed(experiment, name, texts) for name, texts in swept.items()}
    folder = user_path(options.workdir or _default_folder(experiment, request, axes)).absolute()
    if options.help or options.helpshort:
        return Sweep(options, axes, folder, ())
    if not axes:
        raise flags.Error(
            "Expected a flag with several values, got one value of each. Give one flag several "
            "values, for example --seed=0,1."
        )
    passed = [one for one in fixed if _name(one) not in _NOT_PASSED]
    points = [dict(zip(axes, texts, strict=True)) for texts in itertools.product(*swept.values())]
    jobs = [_job(experiment, request, axes, point, folder, passed) for point in points]
    return Sweep(options, axes, folder, jobs)


def _job(
    experiment: Experiment,
    request: Request,
    axes: Axes,
    point: Mapping[str, str],
    folder: Path,
    passed: Sequence[str],
) -> Job:
    given = {**request.given, **{name: axes[name][value] for name, value in point.items()}}
    form = {"quick": request.options.quick, "full": request.options.full}
    config = experiment.resolve(given, **form)
    # The folder's name has a digest of the files that are read: when one changes, the job is new.
    own = folder / JOBS / default_workdir(config, experiment.identity(config)).name
    swept = [f"--{name}={value}" for name, value in point.items()]
    return Job(point, own, (*passed, *swept, f"--workdir={own}"))


def _split(
    experiment: Experiment, argv: Sequence[str]
) -> tuple[Sequence[str], dict[str, list[str]]]:
    """Separates the arguments of one value from those of several, which it returns by flag."""
    hints = get_type_hints(experiment.config)
    fixed: list[str] = []
    swept: dict[str, list[str]] = {}
    for argument in argv:
        name, equals, value = _name(argument), *argument.partition("=")[1:]
        if not argument.startswith("-"):
            raise flags.Error(f"Unexpected argument {argument!r}. Write flags as --name=value.")
        swept.pop(name, None)  # the last one counts, as in every command
        values = _values(value, hints[name]) if equals and name in hints else []
        if len(values) > 1:
            swept[name] = values
        else:
            fixed.append(f"--{name}={values[0]}" if values else argument)
    return fixed, swept


def _name(argument: str) -> str:
    return argument.lstrip("-").partition("=")[0]


def _values(value: str, hint: Any) -> list[str]:
    if ";" in value:
        return [part.strip() for part in value.split(";") if part.strip()]
    is_list = any(get_origin(one) is tuple for one in (hint, *get_args(hint)))
    return [value] if is_list else split_specs(value) or [value]


def _parsed(experiment: Experiment, name: str, texts: Sequence[str]) -> dict[str, Any]:
    found = {one: parse(experiment, [f"--{name}={one}"]).given[name] for one in texts}
    if len(set(found.values())) < len(texts):
        raise flags.Error(
            f"Expected different values in --{name}, got {';'.join(texts)}. Remove one."
        )
    return found


def _default_folder(experiment: Experiment, request: Request, axes: Axes) -> Path:
    label = ",".join(f"{name}={shorten(';'.join(texts))}" for name, texts in axes.items())
    identity = digest(request.given, axes, request.options.quick, request.options.full)
    return Path("results", f"{experiment.name}-sweep", f"{sanitise(label)}-{identity}")
