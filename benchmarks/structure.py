"""Measurements of carries that fall into blocks, against the whole carry; and finding the blocks.

Each row is `log_norms` of one sequence in float64, from the state to itself: the first call, which
finds the blocks and compiles, the median of later ones, and what the whole carry takes where its
products fit into memory. The last column compares them.

    python benchmarks/structure.py
    python benchmarks/structure.py --quick      # small sizes
"""

import time
from collections.abc import Callable, Sequence
from unittest import mock

import jax
import jax.numpy as jnp
from absl import app, flags
from timing import medians, print_head, print_row, set_up

from gradflow import flow
from gradflow.cells import resolve
from gradflow.flow import decoupled, step_pattern
from gradflow.flow.step_pattern import Step, parts_of

INPUT_SIZE = 64
MOST_DENSE = 512
"""Entries of a carry up to which it is also measured as a whole."""

CASES = [
    ("indrnn", 256, 1000, "h"),
    ("indrnn", 16384, 1000, "h"),
    ("lru", 256, 1000, "carry"),
    ("mamba(state_size=16)", 512, 1000, "S"),
    ("gated_deltanet(num_heads=4)", 256, 512, "S"),
]
QUICK = [("indrnn", 16, 20, "h"), ("lru", 8, 20, "carry"), ("deltanet(num_heads=2)", 8, 20, "S")]

FINDING = [("indrnn", 2048), ("indrnn", 16384), ("lru", 1024), ("deltanet", 32), ("deltanet", 64),
           ("lstm", 256), ("lstm", 1024)]  # fmt: skip

_QUICK = flags.DEFINE_bool("quick", False, "Whether to run small sizes alone.")
_REPEATS = flags.DEFINE_integer("repeats", 5, "Timed runs of each.", lower_bound=1)


def measuring(spec: str, size: int, num_steps: int, block: str) -> list[object]:
    """The row of one cell."""
    cell = resolve(spec)(INPUT_SIZE, size)
    params = cell.init(jax.random.key(0))
    inputs = jax.random.normal(jax.random.key(1), (num_steps, INPUT_SIZE))
    sizes = flow.block_sizes(cell, params, inputs, block=block)

    def blocks() -> jax.Array:
        return flow.log_norms(cell, params, inputs, source=block, target=block)

    def whole() -> jax.Array:
        with mock.patch.object(decoupled, "structure_of", lambda *_: None):
            return blocks()

    start = time.perf_counter()
    jax.block_until_ready(blocks())
    first = time.perf_counter() - start
    runs: dict[str, Callable[[], jax.Array]] = {"blocks": blocks}
    total = sum(size * count for size, count in sizes.items())
    if total <= MOST_DENSE:
        runs["whole"] = whole
    taken = medians(runs, _REPEATS.value)
    ratio = taken["whole"] / taken["blocks"] if "whole" in taken else None
    return [
        f"`{spec}`, {size} units, T = {num_steps}",
        " + ".join(f"{count} of {size}" for size, count in sizes.items()),
        f"{first:.1f}",
        f"{taken['blocks']:.3f}",
        "" if ratio is None else f"{taken['whole']:.2f}",
        "" if ratio is None else f"{ratio:.0f}",
    ]


def finding(spec: str, size: int) -> list[object]:
    """The row of the time to find the blocks of one cell, once for each cell and size."""
    cell = resolve(spec)(INPUT_SIZE, size)
    params = jax.eval_shape(cell.init, jax.random.key(0))
    step = Step.of(cell, params, cell.initial_carry(), jnp.zeros(INPUT_SIZE))
    step_pattern.parts_of.cache_clear()
    start = time.perf_counter()
    found = parts_of(step)
    seconds = time.perf_counter() - start
    entries = sum(leaf.size for leaf in jax.tree.leaves(cell.initial_carry()))
    return [f"`{spec}`, {size} units", entries, len(found.parts) if found else 1, f"{seconds:.2f}"]


def main(argv: Sequence[str]) -> None:
    """Prints the tables."""
    set_up(argv)
    print_head("cell", "blocks", "first, s", "blocks, s", "whole, s", "whole / blocks")
    for case in QUICK if _QUICK.value else CASES:
        print_row(*measuring(*case))
    print()
    print_head("cell", "entries", "blocks", "found in, s")
    for spec, size in FINDING[:: 6 if _QUICK.value else 1]:
        print_row(*finding(spec, size))


if __name__ == "__main__":
    app.run(main)
