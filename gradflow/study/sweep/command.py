"""The command ``gradflow sweep``: runs the jobs that are not done, and joins the records."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from gradflow.locks import locked
from gradflow.study.console import table
from gradflow.study.experiment import Experiment, check_docstrings
from gradflow.study.figure import save, style
from gradflow.study.flags import help_text
from gradflow.study.folder import CONFIG, RESULT, check_writable
from gradflow.study.provenance import command_line
from gradflow.study.runner import FAULTS, fail
from gradflow.study.store import read_dataset, write_dataset, write_verified
from gradflow.study.sweep.figure import figure
from gradflow.study.sweep.jobs import remove, run_here, state_of
from gradflow.study.sweep.merged import CLAIM, merge
from gradflow.study.sweep.request import LOGS, Sweep, SweepOptions, read_sweep
from gradflow.study.sweep.slurm import make_executor, run_on_slurm
from gradflow.study.sweep.studies import find_study, load_study

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

SWEEP = "sweep.json"
"""The file that marks the folder of a sweep; it has the command and the swept values."""

_FILES = (CONFIG, RESULT, "figure.pdf", "figure.png")


def main(argv: Sequence[str]) -> int:
    """Runs a sweep as its command line asks: the study, then flags, some with several values.

    Returns:
      The exit code: 0 if every job is done; 1 if one is not, or the sweep is at fault; 2 for a
      study or a flag that is.
    """
    try:
        if not argv or argv[0].startswith("-"):
            raise ValueError(
                f"Expected a study first, got {argv[0] if argv else 'nothing'!r}. Write gradflow "
                "sweep STUDY --seed=0,1."
            )
        study = find_study(argv[0])
        check_docstrings()
        experiment = load_study(study)
        sweep = read_sweep(experiment, argv[1:])
    except (flags.Error, *FAULTS) as error:
        return fail(error, 2)
    if sweep.options.help or sweep.options.helpshort:
        print(help_text(experiment, SweepOptions))
        return 0
    try:
        return _perform(experiment, study, sweep, command_line("gradflow sweep", argv))
    except FAULTS as error:
        return fail(error, 1)


def _perform(experiment: Experiment, study: Path, sweep: Sweep, command: str) -> int:
    if sweep.options.status:
        return _report(sweep)
    _check_folder(sweep.folder)
    with locked(sweep.folder):
        _run(study, sweep, command)
        code = _report(sweep)
        _join(experiment, sweep, command)
    return code


def _check_folder(folder: Path) -> None:
    """Refuses a folder with results of something else, which a sweep would replace."""
    check_writable(folder)
    others = [name for name in _FILES if (folder / name).exists()]
    if others and not (folder / SWEEP).exists():
        raise ValueError(
            f"Expected {folder} to hold a sweep or nothing, got {', '.join(others)} and no {SWEEP}."
            " Choose another --workdir."
        )


def _run(study: Path, sweep: Sweep, command: str) -> None:
    """Runs the jobs that are not done."""
    options, slurm = sweep.options, None
    if options.launcher == "slurm":
        slurm = make_executor(sweep.folder, options.jobs, options.slurm)
    swept = {name: list(texts) for name, texts in sweep.axes.items()}
    write_verified(sweep.folder / SWEEP, {"command": command, "swept": swept})
    for job in sweep.jobs if options.overwrite else ():
        remove(job)
    left = [job for job in sweep.jobs if state_of(job)[0] != "done"]
    if slurm is None:
        run_here(study, left, options.jobs)
    elif left:
        run_on_slurm(study, left, sweep.folder, slurm)


def _report(sweep: Sweep) -> int:
    """Prints the table of the jobs; returns 1 if one is not done."""
    states = [state_of(job) for job in sweep.jobs]
    rows = [
        {**job.point, "state": state, **({"reason": reason} if reason else {})}
        for job, (state, reason) in zip(sweep.jobs, states, strict=True)
    ]
    counts = Counter(state for state, _ in states)
    print(table(rows))
    print(", ".join(f"{count} {state}" for state, count in counts.items()))
    if counts["failed"]:
        print(
            f"What each job printed is in {sweep.folder / LOGS}. The same command runs the failed "
            "jobs again, and no other."
        )
    return int(counts["done"] < len(sweep.jobs))


def _join(experiment: Experiment, sweep: Sweep, command: str) -> None:
    """Writes the joined records of the jobs that are done, and the figure of these."""
    done = [job for job in sweep.jobs if state_of(job)[0] == "done"]
    if not done:
        return
    records = [(job.point, read_dataset(job.folder / RESULT)) for job in done]
    path = sweep.folder / RESULT
    write_dataset(path, merge(experiment, sweep.axes, records))
    own = set(sweep.axes) <= set(records[0][1].dims)
    drawn = _draw(experiment, read_dataset(path), own=own)
    save(drawn, sweep.folder, "figure", {"Title": experiment.title, "Subject": command})
    print(f"The records of {len(done)} of {len(sweep.jobs)} jobs are joined in {path}.")


def _draw(experiment: Experiment, dataset: "xarray.Dataset", *, own: bool) -> "Figure":
    """Draws the study's figure if it has an axis for every swept flag, else that of the claims."""
    if own:
        try:
            return experiment.draw(dataset.drop_dims(CLAIM))
        except Exception as error:  # it was written for the record of one run, and fails anyhow
            print(f"The study's own figure cannot show the joined records: {error!r}.")
    with style():
        return figure(dataset)
