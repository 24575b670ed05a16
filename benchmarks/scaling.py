"""Runs and batches shared by several processes, and the constants of the cost model of scaling.

Each number of processes, with one device each, executes three programs: `flow.log_norms` of several
runs, updates of several runs of a training, and updates of one run whose batch is shared. Printed
are medians of the wall time; of the CPU time of process 0; and what docs/scaling.md predicts for
the latter from that of one process. More processes than cores cannot gain wall time, but the work
of each must fall. Two further columns are the constants of the model: the wall time of an
all-reduce of one number, and of one of `--megabytes` for each megabyte.

    python benchmarks/scaling.py --processes=1,2,4
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags
from jax.sharding import NamedSharding, PartitionSpec
from timing import print_head, print_row, set_up

from gradflow import flow
from gradflow.cells import resolve
from gradflow.devices import map_runs
from gradflow.tasks import resolve_task
from gradflow.train import Training, advance, begin, resolve_clipping, resolve_optimiser

_PROCESSES = flags.DEFINE_list("processes", ["1", "2", "4"], "Numbers of processes.")
_RUNS = flags.DEFINE_integer("runs", 16, "Runs that are measured, and trained.", lower_bound=1)
_HIDDEN_SIZE = flags.DEFINE_integer("hidden_size", 64, "Hidden units of the LSTM.", lower_bound=1)
_NUM_STEPS = flags.DEFINE_integer("num_steps", 100, "Steps of a sequence.", lower_bound=2)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Sequences of an update.", lower_bound=1)
_UPDATES = flags.DEFINE_integer("updates", 5, "Updates of a timed run.", lower_bound=1)
_MEGABYTES = flags.DEFINE_integer("megabytes", 4, "The large all-reduce.", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 5, "Timed runs of each.", lower_bound=1)
_WORKER = flags.DEFINE_string("worker", None, "HOST:PORT,NUMBER,ID of a process of the benchmark.")

MEASURED, TRAINED, SHARED = "runs measured", "runs trained", "batch shared"
LATENCY, LARGE = "latency", "large"


def updates(num_runs: int, batch_size: int) -> Callable[[], Mapping[str, jax.Array]]:
    """Returns a function that makes the next updates of a number of runs."""
    task = resolve_task(f"adding(num_steps={_NUM_STEPS.value})")
    training = Training(
        resolve("lstm")(task.input_size, _HIDDEN_SIZE.value),
        task,
        resolve_optimiser("adam"),
        resolve_clipping("none"),
        batch_size=batch_size,
    )
    keys = jax.random.split(jax.random.key(0), num_runs)
    runs = begin(training, keys, jnp.full(num_runs, 1e-3))

    def further() -> Mapping[str, jax.Array]:
        nonlocal runs
        runs, means = advance(training, runs, _UPDATES.value)
        return means

    return further


def norms() -> Callable[[], jax.Array]:
    """Returns a function that measures all runs."""
    cell = resolve("lstm")(16, _HIDDEN_SIZE.value)
    params = cell.init(jax.random.key(0))
    shape = _RUNS.value, _NUM_STEPS.value, 16
    inputs = jax.random.normal(jax.random.key(1), shape)
    measure = jax.jit(map_runs(lambda x: flow.log_norms(cell, params, x)))
    return partial(measure, inputs)


def all_reduce(size: int) -> Callable[[], jax.Array]:
    """Returns a function that sums as many bytes over all devices."""
    mesh = jax.make_mesh((jax.device_count(),), ("all",))
    over, everywhere = (NamedSharding(mesh, PartitionSpec(*axis)) for axis in (("all",), ()))
    zeros = jax.jit(
        lambda: jnp.zeros((jax.device_count(), size // 4), jnp.float32), out_shardings=over
    )()
    return partial(jax.jit(partial(jnp.sum, axis=0), out_shardings=everywhere), zeros)


def work(worker: str) -> None:
    """Measures in a process of the benchmark; the first one prints the medians as JSON."""
    address, number, own = worker.split(",")
    if int(number) > 1:
        jax.distributed.initialize(address, int(number), int(own))
    contestants: dict[str, Callable[[], Any]] = {
        MEASURED: norms(),
        TRAINED: updates(_RUNS.value, 16),
        SHARED: updates(1, _BATCH_SIZE.value),
        LATENCY: all_reduce(4),
        LARGE: all_reduce(_MEGABYTES.value * 10**6),
    }
    found = {name: medians(run) for name, run in contestants.items()}
    if own == "0":
        print(json.dumps(found))


def medians(run: Callable[[], Any]) -> tuple[float, float]:
    """Measures the median wall time and the median CPU time in seconds, after one warm-up run."""
    times = []
    for _ in range(_REPEATS.value + 1):
        start = time.perf_counter(), time.process_time()
        jax.block_until_ready(run())
        times.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    wall, cpu = (statistics.median(one) for one in zip(*times[1:], strict=True))
    return wall, cpu


def measured(number: int) -> dict[str, list[float]]:
    """Starts a number of processes, and returns the medians that the first one has measured."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{one.getsockname()[1]}"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, *sys.argv, f"--worker={address},{number},{own}"],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for own in range(number)
    ]
    outputs = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise RuntimeError(f"Expected {number} processes to end well. See the errors above.")
    return json.loads(outputs[0].splitlines()[-1])


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    set_up(argv, x64=False)
    if _WORKER.value:
        work(_WORKER.value)
        return
    programs = MEASURED, TRAINED, SHARED
    print_head("processes", *(f"{name}, s: CPU (model)" for name in programs), "latency", "per MB")
    alone = measured(1)
    for number in map(int, _PROCESSES.value):
        found = alone if number == 1 else measured(number)
        waves = -(-_RUNS.value // number) / _RUNS.value
        shares = {MEASURED: waves, TRAINED: waves, SHARED: 1 / number}
        print_row(
            number,
            *(
                f"{found[name][0]:.2f}: {found[name][1]:.3f} ({alone[name][1] * share:.3f})"
                for name, share in shares.items()
            ),
            f"{1e3 * found[LATENCY][0]:.2f} ms",
            f"{1e3 * found[LARGE][0] / _MEGABYTES.value:.2f} ms",
        )


if __name__ == "__main__":
    app.run(main)
