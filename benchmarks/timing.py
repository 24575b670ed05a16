"""What the benchmarks share: timing by turns, contestants in own processes, and table rows.

Contestants run alternately, so that a drift of the machine's speed affects all of them alike.
"""

import importlib.util
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from absl import app

REST = 0.2
"""Seconds before each run of another process, until the threads of the last one stop spinning."""


def set_up(argv: Sequence[str], *, x64: bool = True) -> None:
    """Refuses positional arguments, and sets the precision.

    Raises:
      app.UsageError: If there is an argument that is not a flag.
    """
    if len(argv) > 1:
        raise app.UsageError(f"Expected only flags, got {argv[1:]}. Remove them.")
    jax.config.update("jax_enable_x64", x64)


def with_torch(wanted: bool = True) -> bool:
    """Returns whether PyTorch is wanted and installed."""
    return wanted and importlib.util.find_spec("torch") is not None


def print_head(*titles: object) -> None:
    """Prints the head of a Markdown table."""
    print_row(*titles)
    print("|---" * len(titles) + "|", flush=True)


def print_row(*entries: object) -> None:
    """Prints a row of a Markdown table."""
    print(f"| {' | '.join(map(str, entries))} |", flush=True)


def medians(contestants: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Measures the median wall time of each contestant in seconds, after one warm-up run."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(repeats + 1):
        for name, run in contestants.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in times.items()}


def answer(run: Callable[[], Any]) -> None:
    """Runs once, and then once for every line of the standard input; prints the seconds taken."""
    run()
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        run()
        print(time.perf_counter() - start, flush=True)


def medians_of_processes(commands: Mapping[str, Sequence[str]], repeats: int) -> dict[str, float]:
    """Measures the median wall time in seconds of contestants that are processes.

    Args:
      commands: The arguments with which Python runs each contestant, which calls `answer`.
      repeats: Runs of each.

    Raises:
      RuntimeError: If a process ends before it is ready.
    """
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    started = {
        name: subprocess.Popen([sys.executable, *command], **pipes)
        for name, command in commands.items()
    }
    for name, process in started.items():
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise RuntimeError(f"Expected {name} to start, but it ended. See its error above.")
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
