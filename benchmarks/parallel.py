"""A sequence run in parallel over time against the scan, by length, for cells whose step is affine.

The states and the gradient of a loss of the outputs by the parameters, one sequence in float64 if
nothing else is asked for; milliseconds, medians of alternating runs in one process. The lengths of
chunks are those of `gradflow.unroll.rules`.

    python benchmarks/parallel.py
    python benchmarks/parallel.py --cells='mingru;lru' --hidden_sizes=16,256,4096 \\
        --num_steps=128,2048,65536 --chunks=32,128,512
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
from absl import app, flags
from timing import medians, print_head, print_row, set_up

from gradflow.cell import Cell
from gradflow.cells import resolve
from gradflow.unroll import unroll
from gradflow.unroll.rules import RULES, rules

INPUT_SIZE = 8

_CELLS = flags.DEFINE_string("cells", "mingru;lru", "Cells, separated by semicolons.")
_HIDDEN_SIZES = flags.DEFINE_list("hidden_sizes", ["16", "256"], "Hidden sizes.")
_NUM_STEPS = flags.DEFINE_list("num_steps", ["128", "1024"], "Lengths T.")
_CHUNKS = flags.DEFINE_list("chunks", ["32", "128", "512"], "Lengths of chunks.")
_BATCH = flags.DEFINE_integer("batch", 0, "Sequences side by side; 0 for a single one.")
_X64 = flags.DEFINE_boolean("x64", True, "Compute in float64.")
_REPEATS = flags.DEFINE_integer("repeats", 3, "Timed runs of each.", lower_bound=1)


def contestants(
    cell: Cell, method: str, chunk: int, params: Any, inputs: jax.Array
) -> dict[str, Callable[[], Any]]:
    """The states, and the gradient, compiled for a length of chunks."""

    def outputs(params: Any, inputs: jax.Array) -> jax.Array:
        return unroll(cell, params, inputs, method=method).outputs

    def loss(params: Any, inputs: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(outputs(params, inputs)))

    name = f"{method} {chunk}" if chunk else method
    chunked = {jax.default_backend(): rules()._replace(chunk=chunk)}
    with mock.patch.dict(RULES, chunked):
        return {
            f"{name}{suffix}": partial(jax.jit(run).lower(params, inputs).compile(), params, inputs)
            for suffix, run in (("", outputs), (", gradient", jax.grad(loss)))
        }


def entries(spec: str, hidden_size: int, num_steps: int) -> list[object]:
    """The row of a cell, a size and a length."""
    cell = resolve(spec)(INPUT_SIZE, hidden_size)
    params = cell.init(jax.random.key(0))
    shape = (num_steps, _BATCH.value, INPUT_SIZE) if _BATCH.value else (num_steps, INPUT_SIZE)
    inputs = jax.random.normal(jax.random.key(1), shape)
    runs = contestants(cell, "scan", 0, params, inputs)
    for chunk in map(int, _CHUNKS.value):
        runs |= contestants(cell, "parallel", chunk, params, inputs)
    found = medians(runs, _REPEATS.value)
    return [spec, hidden_size, num_steps, *(f"{1e3 * seconds:.2f}" for seconds in found.values())]


def main(argv: Sequence[str]) -> None:
    """Prints a row for each cell, size and length."""
    set_up(argv, x64=_X64.value)
    titles = [f"{m}{s}" for m in ("scan", *_CHUNKS.value) for s in ("", ", gradient")]
    print_head("cell", "hidden", "T", *titles)
    for spec in _CELLS.value.split(";"):
        for hidden_size in map(int, _HIDDEN_SIZES.value):
            for num_steps in map(int, _NUM_STEPS.value):
                print_row(*entries(spec, hidden_size, num_steps))


if __name__ == "__main__":
    app.run(main)
