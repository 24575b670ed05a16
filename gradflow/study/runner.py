"""Runs an experiment as a command line asks, and records it."""

import contextlib
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from gradflow.cores import use_all_cores
from gradflow.locks import locked
from gradflow.paths import user_path, write_bytes
from gradflow.processes import FirstProcessError, from_first
from gradflow.study import provenance
from gradflow.study.config import Config
from gradflow.study.distributed import check_agreement, connected
from gradflow.study.experiment import QUICK, Experiment, check_docstrings
from gradflow.study.figure import save
from gradflow.study.flags import Request, help_text, parse
from gradflow.study.memory import advice, check_memory, out_of_memory
from gradflow.study.process import RESUMES, run_process
from gradflow.study.record import RESULT, Record, default_workdir, read_environment
from gradflow.study.settings import (
    check_backend,
    compilation_cache,
    compile_sooner,
    log_level,
    precision,
)
from gradflow.study.store import read_dataset, to_json

if TYPE_CHECKING:
    import xarray

FAULTS = (
    *(ValueError, TypeError, OSError),
    *(MemoryError, OverflowError, FloatingPointError, RuntimeError),
)
"""The errors that flags, files and the machine cause, which are reported in one line.

JAX's runtime and a nesting that is too deep raise a RuntimeError. Others show their traceback.
"""


def main(
    experiment: Experiment, argv: Sequence[str] | None = None, *, program: str | None = None
) -> int:
    """Runs an experiment as its command line asks, and records it.

    Args:
      experiment: What to run.
      argv: The flags. If None, they are the process's own, and the process exits with the code.
      program: The beginning of the command line, as it is recorded; by default the experiment's
        name, or the process's own.

    Returns:
      The exit code: 0; 1 if the configuration or the run is at fault; 2 for a flag that is.
    """
    if argv is None:
        run_process(partial(_main, experiment, program or sys.argv[0], sys.argv[1:]))
    return _main(experiment, program or experiment.name, argv)


def _main(experiment: Experiment, program: str, argv: Sequence[str]) -> int:
    try:
        request = parse(experiment, argv)
    except flags.Error as error:
        return fail(error, 2)
    if request.options.help or request.options.helpshort:
        print(help_text(experiment))
        return 0
    command = provenance.command_line(program, argv)
    try:
        with log_level(request.options.verbosity):
            _perform(experiment, request, command)
    except BrokenPipeError:  # nobody reads the output any more
        raise
    except FirstProcessError as error:
        return fail(error.__cause__, 1) if isinstance(error.__cause__, Exception) else 1
    except FAULTS as error:
        if request.options.verbosity > 0:
            traceback.print_exc()
        message = advice(experiment.config, error) if out_of_memory(error) else error
        return fail(message, 1)
    except KeyboardInterrupt:
        print(f"Interrupted. {RESUMES}", file=sys.stderr)
        return 130
    return 0


def fail(message: Exception | str, code: int) -> int:
    """Prints an error as one line, and returns the exit code."""
    hint = [] if code == 2 else ["(--verbosity=1 shows where)"]
    print("error:", *(str(message) or repr(message)).split(), *hint, file=sys.stderr)
    return code


def _perform(experiment: Experiment, request: Request, command: str) -> None:
    check_docstrings()
    config = experiment.resolve(
        request.given, quick=request.options.quick, full=request.options.full
    )
    compile_sooner()
    use_all_cores()
    caching = compilation_cache(request.options.compilation_cache_dir)
    with precision(config, **{**caching, **request.jax}), connected(request.options):
        if request.options.replot:
            _replot(experiment, _folder(experiment, config, request), command)
        else:
            identity = experiment.identity(config)
            record = Record(_folder(experiment, config, request, identity), identity)
            record.overwrite, record.quick = request.options.overwrite, request.options.quick
            check_agreement([identity, record.overwrite, record.quick, request.jax])
            _run(experiment, config, record, command)


def _folder(
    experiment: Experiment,
    config: Config,
    request: Request,
    identity: Mapping[str, Any] | None = None,
) -> Path:
    if request.options.workdir:
        return user_path(request.options.workdir)
    return default_workdir(config, identity or experiment.identity(config))


def _run(experiment: Experiment, config: Config, record: Record, command: str) -> None:
    record.check()
    if record.done:
        print(f"{record.folder} is finished. --overwrite runs it again.")
        fix = "Run it again with --overwrite."
        dataset = from_first(lambda: _recorded(record.folder, fix))
    else:
        check_backend()
        check_memory(config)
        with record.locked():
            record.check()  # again: another process may have used the folder until now
            dataset = _record(experiment, config, record, command)
        print(f"recorded in {record.folder}")
    print(experiment.report(dataset))


def _recorded(folder: Path, fix: str) -> "xarray.Dataset":
    try:
        return read_dataset(folder / RESULT)
    except OSError as error:
        raise OSError(f"Expected a recorded result, but {error}. {fix}") from None


def _record(
    experiment: Experiment, config: Config, record: Record, command: str
) -> "xarray.Dataset":
    dataset = record.result(partial(_measure, experiment, config, record, command))
    from_first(lambda: _save(experiment, dataset, record.folder, command))
    record.finish()
    return dataset


def _measure(
    experiment: Experiment, config: Config, record: Record, command: str
) -> "xarray.Dataset":
    import xarray

    start = time.perf_counter()
    dataset = experiment.run(config, record.once)
    if not isinstance(dataset, xarray.Dataset):
        raise TypeError(
            f"Expected run to return an xarray.Dataset, got {type(dataset).__name__}. Put its "
            "results into a Dataset."
        )
    environment = {
        "command": command,
        "seconds": round(time.perf_counter() - start + record.reused_seconds, 3),
        "reused_units": record.reused,
        "other_num_devices": sorted(record.other_devices),
        "precision": config.precision,
        **provenance.machine(),
        **provenance.memory(),
        **provenance.versions(),
        **provenance.checkout(),
    }
    # Before the result: a later process must not record itself as the origin of a stored result.
    record.write_environment(environment)
    small = {QUICK: 1} if experiment.is_quick(config, asked=record.quick) else {}
    return dataset.assign_attrs(
        small,
        title=experiment.title,
        experiment=experiment.name,
        config=to_json(record.identity["config"]),
    )


def _replot(experiment: Experiment, folder: Path, command: str) -> None:
    dataset = _recorded(folder, "Run the experiment without --replot.")
    with locked(folder):
        _save(experiment, dataset, folder, command)
    print(f"drawn again in {folder}")


def _save(experiment: Experiment, dataset: "xarray.Dataset", folder: Path, command: str) -> None:
    environment = {"command": command, "git_commit": "unknown"}
    with contextlib.suppress(FileNotFoundError):  # it has been removed, or was never there
        environment |= read_environment(folder)
    metadata = {
        "Title": experiment.title,
        "Subject": environment["command"],
        "Keywords": f"git commit {environment['git_commit']}",
    }
    save(experiment.draw(dataset), folder, "figure", metadata)
    for name, content in experiment.documents(dataset, environment).items():
        write_bytes(folder / name, content)
