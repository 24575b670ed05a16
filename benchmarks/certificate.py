"""Which stage certifies the spectral norms of a network, and its time against decompositions.

For each cell, `log_norms` of one sequence in float64 is timed against the Frobenius norm, which
needs no search, and against a decomposition at every lag (medians of alternating runs in one
process). Then come the numbers of lags that each stage decided.

    python benchmarks/certificate.py --cells='lstm;rnn(recurrent_init="identity")' --hidden_size=128
    python benchmarks/certificate.py --cells=all --repeats=0     # the stages only
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from timing import medians, print_head, print_row, set_up

from gradflow import flow
from gradflow.cell import Cell, Params
from gradflow.cells import CELLS, resolve
from gradflow.flow.blocks import Blocks
from gradflow.flow.trace import trace_of
from gradflow.numerics.certificate import by_decomposition
from gradflow.numerics.scaling import Scaled, log_scaled, scaled

INPUT_SIZE = 8
STAGES = "direct", "warm", "searched", "Cholesky", "decomposed"

_CELLS = flags.DEFINE_string("cells", "lstm;gru;rnn", "Cells, separated by semicolons, or all.")
_HIDDEN_SIZE = flags.DEFINE_integer("hidden_size", 64, "Hidden units.", lower_bound=1)
_NUM_STEPS = flags.DEFINE_integer("num_steps", 200, "Length T of the sequence.", lower_bound=1)
_BLOCK = flags.DEFINE_string("block", "h", "Source and target.")
_REPEATS = flags.DEFINE_integer(
    "repeats", 5, "Timed runs of each; 0 for the stages only.", lower_bound=0
)


@partial(jax.jit, static_argnums=(0, 1))
def decomposed(cell: Cell, blocks: Blocks, params: Params, inputs: jax.Array) -> jax.Array:
    """Computes the log norms at the lags from 1 on, with a decomposition at each."""
    with jax.default_matmul_precision("highest"):
        trace = trace_of(cell, params, inputs)

        def back(product: Scaled, index: jax.Array) -> tuple[Scaled, jax.Array]:
            product = trace.pull(index, product)
            matrix = blocks.cut_scaled(trace, product)
            return product, log_scaled(by_decomposition(matrix.value), matrix.exponent)

        first = scaled(blocks.rows(trace))
        return jax.lax.scan(back, first, jnp.arange(len(inputs))[::-1])[1]


def entries(spec: str) -> list[object]:
    """The row of a cell."""
    cell = resolve(spec)(INPUT_SIZE, _HIDDEN_SIZE.value)
    params = cell.init(jax.random.key(0))
    inputs = jax.random.normal(jax.random.key(1), (_NUM_STEPS.value, INPUT_SIZE))
    blocks: dict[str, Any] = {"source": _BLOCK.value, "target": _BLOCK.value}
    stage = np.asarray(flow.norm_certificate(cell, params, inputs, **blocks).stage)
    counts = [int(np.sum(stage == number)) for number in range(len(STAGES))]
    if not _REPEATS.value:
        return [spec, *counts]
    runs: dict[str, Callable] = {
        "ours": lambda: flow.log_norms(cell, params, inputs, **blocks),
        "frobenius": lambda: flow.log_norms(cell, params, inputs, norm="frobenius", **blocks),
        "decomposed": lambda: decomposed(cell, Blocks(**blocks), params, inputs),
    }
    taken = medians(runs, _REPEATS.value)
    times = (f"{taken[name] * 1e3:.0f}" for name in runs)
    return [spec, *times, f"{taken['ours'] / taken['decomposed']:.2f}", *counts]


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    set_up(argv)
    times = ["ours, ms", "Frobenius, ms", "decomposed, ms", "ours / decomposed"]
    print_head("cell", *(times if _REPEATS.value else []), *STAGES)
    for spec in sorted(CELLS) if _CELLS.value == "all" else _CELLS.value.split(";"):
        print_row(*entries(spec))


if __name__ == "__main__":
    app.run(main)
