"""Starts one command as several real processes of this machine, which `--distributed` connects."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
EXPERIMENTS = ROOT / "experiments"
TINY = Path(__file__).parent / "tiny.py"

SECONDS = 300
"""How long a test waits for a process: on a busy machine, a start alone takes some seconds."""


class Ended(NamedTuple):
    """How a process has ended."""

    code: int
    out: str
    errors: list[str]


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def alone(devices: int, *command: object) -> Ended:
    """Runs a command as one process with so many devices."""
    return ended(_start(devices, [*map(str, command)]))


@contextmanager
def together(
    commands: Sequence[Sequence[object]],
    *,
    devices: Sequence[int] | None = None,
    ids: Sequence[int] | None = None,
) -> Iterator[list[subprocess.Popen]]:
    """Starts commands as the processes of one run.

    Args:
      commands: The file of the study and its flags, of each process.
      devices: The number of devices of each; one by default.
      ids: The number of each process; in order by default.
    """
    number, address = len(commands), f"127.0.0.1:{free_port()}"
    started = []
    try:
        for i, command in enumerate(commands):
            own = i if ids is None else ids[i]
            how = f"--coordinator={address}", f"--num_processes={number}", f"--process_id={own}"
            started.append(_start(devices[i] if devices else 1, [*map(str, command), *how]))
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def _start(devices: int, command: Sequence[str]) -> subprocess.Popen:
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    return subprocess.Popen(
        [sys.executable, *command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen) -> Ended:
    """Waits for the end of a process and of its output."""
    out, errors = process.communicate(timeout=SECONDS)
    return Ended(process.returncode, out, errors.splitlines())


def killed(process: subprocess.Popen) -> None:
    """Ends a process as a machine's failure does."""
    os.kill(process.pid, signal.SIGKILL)
