"""Timing of contestants in turns, so that a machine whose speed drifts is unfair to none."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax


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
