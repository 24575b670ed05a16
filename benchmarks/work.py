"""The time of `log_norms` relative to its work, and measurements of very long sequences.

The work of a step is n³, for a vanilla RNN of n units: one matrix product of all rows. The table is
the time over T n³; it is constant where the products dominate, and larger for small networks, whose
elementwise operations and searches count.

    python benchmarks/work.py
    python benchmarks/work.py --num_steps=100,1000 --hidden_sizes=64,256 --plot=work.png
    python benchmarks/work.py --long
    python benchmarks/work.py --chunk_steps=20000

With --long, for an LSTM: the memory that the compiler plans for each measurement at T = 1,000,000,
and the time per step, measured at a smaller T. With --chunk_steps, `log_norms` is really run at
T = 1,000,000, in chunks.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from absl import app, flags
from timing import medians, print_head, print_row, set_up

from gradflow import flow
from gradflow.cells import lstm, rnn
from gradflow.study.provenance import memory
from gradflow.unroll import unroll

INPUT_SIZE = 16
LONG_HIDDEN_SIZE = 64
LONG_NUM_STEPS = 1_000_000

_NUM_STEPS = flags.DEFINE_list("num_steps", ["100", "1000", "10000"], "Lengths T.")
_HIDDEN_SIZES = flags.DEFINE_list("hidden_sizes", ["64", "128", "256", "512"], "Sizes n.")
_REPEATS = flags.DEFINE_integer("repeats", 1, "Timed runs of each.", lower_bound=1)
_PLOT = flags.DEFINE_string("plot", None, "A PNG file for a plot of the table.")
_LONG = flags.DEFINE_boolean("long", False, "Measure a very long sequence instead.")
_CHUNK_STEPS = flags.DEFINE_integer(
    "chunk_steps", None, "Measure T = 1,000,000 in chunks of so many steps instead.", lower_bound=1
)
_MEASURED = flags.DEFINE_integer(
    "measured_steps", 2000, "T at which --long measures times.", lower_bound=1
)


def nanoseconds(num_steps: int, hidden_size: int) -> float:
    """The time of `log_norms` over T n³, in nanoseconds."""
    cell = rnn(INPUT_SIZE, hidden_size)
    params = cell.init(jax.random.key(0))
    inputs = jax.random.normal(jax.random.key(1), (num_steps, INPUT_SIZE))
    run = {"log_norms": partial(flow.log_norms, cell, params, inputs)}
    (seconds,) = medians(run, _REPEATS.value).values()
    return 1e9 * seconds / (num_steps * hidden_size**3)


def plot(table: dict[int, list[float]], sizes: list[int], path: Path) -> None:
    """Plots the time over T n³ against n, one line for each T."""
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(3.5, 2.6), layout="constrained")
    for (num_steps, row), marker in zip(table.items(), "os^vD" * len(table), strict=False):
        ax.semilogx(sizes, row, marker=marker, label=f"T = {num_steps}")
    ax.set(xlabel="hidden units n", ylabel=r"time / ($T n^3$) (ns)", xticks=sizes)
    ax.set_xticks(sizes, [str(size) for size in sizes])
    ax.minorticks_off()
    ax.set_ylim(0)
    ax.legend()
    fig.savefig(path, dpi=200)


def report_work() -> None:
    """Prints the table of the time over T n³, and plots it with --plot."""
    sizes = [int(size) for size in _HIDDEN_SIZES.value]
    print_head("ns / (T n³)", *(f"n = {size}" for size in sizes))
    table = {}
    for num_steps in map(int, _NUM_STEPS.value):
        table[num_steps] = [nanoseconds(num_steps, size) for size in sizes]
        print_row(f"T = {num_steps}", *(f"{value:.4f}" for value in table[num_steps]))
    if _PLOT.value:
        plot(table, sizes, Path(_PLOT.value))


def measurements() -> dict[str, Callable]:
    """Measurements of an LSTM, as functions of the parameters and the inputs."""
    cell = lstm(INPUT_SIZE, LONG_HIDDEN_SIZE)

    def loss(outputs: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(outputs))

    of_cell = {
        "unroll": unroll,
        "gates": flow.gates,
        "log_norms": flow.log_norms,
        "lyapunov_exponents": flow.lyapunov_exponents,
        "log_singular_values": flow.log_singular_values,
        "decomposition_norms": flow.decomposition_norms,
        "steps_by_path": flow.steps_by_path,
    }
    of_loss = {"adjoints": flow.adjoints, "components": flow.components}
    return {name: partial(function, cell) for name, function in of_cell.items()} | {
        name: partial(function, cell, loss=loss) for name, function in of_loss.items()
    }


def report_long() -> None:
    """Prints the memory at T = 1,000,000 and the time per step of each measurement."""
    cell = lstm(INPUT_SIZE, LONG_HIDDEN_SIZE)
    params = cell.init(jax.random.key(0))
    inputs = jax.random.normal(jax.random.key(1), (_MEASURED.value, INPUT_SIZE))
    long = jax.ShapeDtypeStruct((LONG_NUM_STEPS, INPUT_SIZE), inputs.dtype)
    print_head("measurement", f"GiB at T = {LONG_NUM_STEPS}", "µs per step", "minutes for all")
    for name, function in measurements().items():
        run = jax.jit(function)
        size = gibibytes(run.lower(params, long).compile())
        (seconds,) = medians({name: partial(run, params, inputs)}, _REPEATS.value).values()
        step = seconds / _MEASURED.value
        minutes = step * LONG_NUM_STEPS / 60
        print_row(name, f"{size:.1f}", f"{1e6 * step:.0f}", f"{minutes:.1f}")


def report_chunked(chunk_steps: int) -> None:
    """Prints the time and the peak memory of `log_norms` of a very long sequence in chunks."""
    cell = lstm(INPUT_SIZE, LONG_HIDDEN_SIZE)
    inputs = jax.random.normal(jax.random.key(1), (LONG_NUM_STEPS, INPUT_SIZE))
    run = flow.in_chunks(flow.log_norms, chunk_steps=chunk_steps)
    start = time.perf_counter()
    found = run(cell, cell.init(jax.random.key(0)), inputs)
    seconds = time.perf_counter() - start
    peak = (memory()["host_peak_bytes"] or 0) / 2**30
    print(f"T = {LONG_NUM_STEPS}: {seconds:.1f} s with compilation, peak memory {peak:.1f} GiB;")
    print(f"log norm {found[-1]:.2f} at the last lag")


def gibibytes(compiled: jax.stages.Compiled) -> float:
    """The memory that the compiler plans for arguments, results and temporaries."""
    plan = compiled.memory_analysis()
    if plan is None:
        return float("nan")
    parts = plan.argument_size_in_bytes, plan.output_size_in_bytes, plan.temp_size_in_bytes
    return sum(parts) / 2**30


def main(argv: Sequence[str]) -> None:
    """Prints a table."""
    set_up(argv)
    if _CHUNK_STEPS.value:
        report_chunked(_CHUNK_STEPS.value)
    elif _LONG.value:
        report_long()
    else:
        report_work()


if __name__ == "__main__":
    app.run(main)
