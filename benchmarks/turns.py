"""Timing of contestants in turns, so that a machine whose speed drifts is unfair to none."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

REST = 0.2
"""Seconds before each turn, in which the threads of the process before stop waiting for work."""


def medians(contestants: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """The median wall time of each in seconds, after a first run of each that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(repeats + 1):
        for name, run in contestants.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in times.items()}


def answer(run: Callable[[], Any]) -> None:
    """Runs once, and then for every line that comes in, which it answers with the seconds taken."""
    run()
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        run()
        print(time.perf_counter() - start, flush=True)


def medians_of_processes(commands: Mapping[str, Sequence[str]], repeats: int) -> dict[str, float]:
    """The median wall time of each contestant in seconds, a process each, which calls `answer`.

    Args:
      commands: The arguments with which Python becomes each contestant.
      repeats: Runs of each, in turns.

    Raises:
      RuntimeError: If one does not come up.
    """
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    started = {
        name: subprocess.Popen([sys.executable, *command], **pipes)
        for name, command in commands.items()
    }
    for name, process in started.items():
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise RuntimeError(f"{name} did not come up; its message is above")
    times: dict[str, list[float]] = {name: [] for name in started}
    for _ in range(repeats):
        for name, process in started.items():
            assert process.stdin is not None and process.stdout is not None
            time.sleep(REST)
            process.stdin.write("run\n")
            process.stdin.flush()
            times[name].append(float(process.stdout.readline()))
    for process in started.values():
        process.communicate()
    return {name: statistics.median(taken) for name, taken in times.items()}
