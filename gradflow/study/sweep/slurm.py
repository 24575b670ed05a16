"""The jobs of a sweep as array jobs of Slurm, through submitit."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gradflow.spec import parse_spec
from gradflow.study.folder import DONE
from gradflow.study.store import read_verified, write_verified
from gradflow.study.sweep.jobs import run_job
from gradflow.study.sweep.request import Job

SUBMITTED = "slurm.json"
"""The file with the Slurm id of each job that was submitted last, by the name of its folder."""

LARGEST_ARRAY = 1000
"""The jobs of one array. By default Slurm takes 1001."""

INTERVAL = 1.0
"""Seconds between two looks at the results of the jobs; submitit asks Slurm itself less often."""


def make_executor(folder: Path, number: int | None, options: str) -> Any:
    """Makes the executor of submitit that submits the jobs of a sweep.

    Args:
      folder: The folder of the sweep.
      number: How many jobs run at a time.
      options: Options of sbatch as ``name=literal``, separated by commas.

    Raises:
      ValueError: If submitit is not installed, this is no machine of a Slurm cluster, or an option
        is not known.
    """
    try:
        import submitit  # pyright: ignore[reportMissingImports]  # an extra
    except ImportError:
        raise ValueError(
            "Expected submitit for --launcher=slurm, which is not installed. Run pip install "
            "'gradflow-rnn[cluster]', or use --launcher=local."
        ) from None
    given = parse_spec(f"slurm({options})")[1]
    try:
        executor = submitit.SlurmExecutor(folder / "slurm")
    except RuntimeError:
        raise ValueError(
            "Expected a machine of a Slurm cluster for --launcher=slurm, but there is no command "
            "srun. Run it on a login node, or use --launcher=local."
        ) from None
    limit = {} if number is None else {"array_parallelism": number}
    executor.update_parameters(**{"job_name": "gradflow", **limit, **given})
    return executor


def run_on_slurm(study: Path, jobs: Sequence[Job], folder: Path, executor: Any) -> None:
    """Submits jobs as arrays, unless Slurm still has them, and waits until all have ended.

    An interrupt ends the waiting alone; the same command waits again.
    """
    ids = read_verified(folder / SUBMITTED) if (folder / SUBMITTED).exists() else {}
    known = {
        job.folder.name: executor.job_class(executor.folder, ids[job.folder.name])
        for job in jobs
        if job.folder.name in ids
    }
    submitted = {name: one for name, one in known.items() if _is_pending(one)}
    left = [job for job in jobs if job.folder.name not in submitted]
    for start in range(0, len(left), LARGEST_ARRAY):
        chunk = left[start : start + LARGEST_ARRAY]
        count = len(chunk)
        found = executor.map_array(run_job, [study] * count, chunk, [{}] * count)
        submitted |= {job.folder.name: one for job, one in zip(chunk, found, strict=True)}
        ids |= {name: one.job_id for name, one in submitted.items()}
        write_verified(folder / SUBMITTED, ids)
    while not all(one.done() for one in submitted.values()):
        time.sleep(INTERVAL)
    for job in jobs:
        _explain(job, submitted[job.folder.name])


def _is_pending(submitted: Any) -> bool:
    """Whether Slurm has a job that has not ended; of an old one it no longer knows the state."""
    return not submitted.done(force_check=True) and submitted.state != "UNKNOWN"


def _explain(job: Job, submitted: Any) -> None:
    """Adds to the log why Slurm has ended a job, or could not run it: the job cannot tell."""
    if (job.folder / DONE).exists():
        return
    if not submitted.paths.result_pickle.exists():
        reason = f"Slurm reports the state {submitted.state}."
    elif (error := submitted.exception()) is not None:
        reason = str(error).strip().split("\n")[-1]
    else:
        return
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("a") as log:
        log.write(f"\nerror: {reason}\n")
