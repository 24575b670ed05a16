"""The jobs of a sweep as processes of this machine, and what has become of each.

The log of a job is its lock: it is locked from before its process starts until that has ended. The
process inherits the lock, so that it also holds while a job outlives a sweep that was killed.
"""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

from gradflow.cores import num_cores
from gradflow.study.console import progress
from gradflow.study.folder import DONE, clear
from gradflow.study.sweep.request import Job

State = Literal["done", "running", "failed", "waiting"]

_HINT = " (--verbosity=1 shows where)"


def state_of(job: Job) -> tuple[State, str]:
    """Returns the state of a job, and for a failed one the reason, as one line."""
    if (job.folder / DONE).exists():
        return "done", ""
    if not job.log.exists():
        return "waiting", ""
    with job.log.open("r+b") as log:
        try:
            fcntl.flock(log, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return "running", ""
        lines = log.read().decode(errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "It ended without an output.")
    return "failed", last.strip().removeprefix("error: ").removesuffix(_HINT)


def run_job(study: Path, job: Job, variables: Mapping[str, str]) -> None:
    """Runs a job to its end, unless it is done once no other process runs it.

    Args:
      study: What Python runs.
      job: The job.
      variables: Variables of the job's environment that this process does not set itself.
    """
    with _log(job) as log:
        if (job.folder / DONE).exists():
            return
        log.truncate(0)
        done = subprocess.run(
            [sys.executable, str(study), *job.arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**variables, **os.environ},
            check=False,
        )
        if done.returncode < 0:
            name = signal.Signals(-done.returncode).name
            log.write(f"\nerror: The job was ended by {name}.\n".encode())


def remove(job: Job) -> None:
    """Removes what a job has recorded, once no process runs it."""
    with _log(job) as log:
        clear(job.folder)
        log.truncate(0)


@contextmanager
def _log(job: Job) -> Iterator[BinaryIO]:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        yield log


def run_here(study: Path, jobs: Sequence[Job], number: int | None) -> None:
    """Runs jobs as processes of this machine.

    Args:
      study: What Python runs.
      jobs: The jobs.
      number: How many run at a time; by default one per core.
    """
    number = number or num_cores()
    # The jobs that run at a time share the cores, of which each would otherwise use all.
    devices = {"JAX_NUM_CPU_DEVICES": str(max(1, num_cores() // number))}
    with ThreadPoolExecutor(number) as pool:
        running = [pool.submit(run_job, study, job, devices) for job in jobs]
        for one in progress(running, "jobs"):
            one.result()
