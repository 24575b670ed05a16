"""`log_norms` of an LSTM at every lag, against its bare matrix products and against PyTorch.

One sequence, float64, spectral norm. The bare products are as many as the measurement needs and of
the same shapes: four per step, summed, in a jitted loop. PyTorch makes one reverse pass from h_T,
batched over its rows, and one batched matrix norm. Medians of alternating runs in one process.

    python benchmarks/flow.py --num_steps=200,1000
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from contestants import bare_products
from timing import medians, print_head, print_row, set_up, with_torch
from torch_lstm import torch_log_norms

from gradflow import flow
from gradflow.cells import lstm, rnn
from gradflow.devices import map_runs

INPUT_SIZE = 16

_HIDDEN_SIZE = flags.DEFINE_integer("hidden_size", 256, "Hidden units.", lower_bound=1)
_NUM_STEPS = flags.DEFINE_list("num_steps", ["200", "1000"], "Lengths T of the sequence.")
_BATCH = flags.DEFINE_integer("batch", 16, "Sequences of the batched call.", lower_bound=1)
_TORCH = flags.DEFINE_boolean("torch", True, "Measure PyTorch too if it is installed.")
_REPEATS = flags.DEFINE_integer("repeats", 5, "Timed runs of each.", lower_bound=1)


def contestants(num_steps: int) -> dict[str, Callable]:
    """The runs at one length."""
    cell = lstm(INPUT_SIZE, _HIDDEN_SIZE.value)
    params = cell.init(jax.random.key(0))
    inputs = jax.random.normal(jax.random.key(1), (_BATCH.value, num_steps, INPUT_SIZE))
    measure = partial(flow.log_norms, cell, params)
    runs: dict[str, Callable] = {
        "bare products": bare_products(params, num_steps),
        "log_norms": partial(measure, inputs[0]),
        f"log_norms, batch {_BATCH.value}": partial(jax.jit(map_runs(measure)), inputs),
    }
    if with_torch(_TORCH.value):
        runs["PyTorch"] = torch_log_norms(params, inputs[0], [num_steps])
        off = np.abs(runs["PyTorch"]()[-1, ::-1] - runs["log_norms"]()).max()
        print(f"T = {num_steps}: the two agree within {off:.1e} nats", file=sys.stderr)
    return runs


def error_at_lag_5000(dtype: type) -> float:
    """The relative error of the log norm of a linear cell of gain 0.3, at lag 5000."""
    cell = rnn(1, 16, activation="identity", recurrent_init="orthogonal(gain=0.3)")
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), cell.init(jax.random.key(0)))
    last = flow.log_norms(cell, params, jnp.zeros((5000, 1), dtype))[-1]
    return abs(float(last) / (5000 * np.log(0.3)) - 1)


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    set_up(argv)
    for dtype in (jnp.float64, jnp.float32):
        print(f"gain 0.3, lag 5000: error {error_at_lag_5000(dtype):.1e} in {dtype.__name__}")
    print_head("T", "contestant", "seconds", "of bare products")
    for num_steps in map(int, _NUM_STEPS.value):
        times = medians(contestants(num_steps), _REPEATS.value)
        for name, taken in times.items():
            ratio = taken / times["bare products"]
            print_row(num_steps, name, f"{taken:.3f}", f"{ratio:.2f}")


if __name__ == "__main__":
    app.run(main)
