"""The log norms of every pair of an LSTM, against its bare matrix products and against PyTorch.

The bare products are those that form ∂h_t/∂h_k for every pair, step by step, in a jitted loop and
nothing else. PyTorch makes one reverse pass from every t, batched over its rows, and one batched
matrix norm for each t. Medians of alternating runs in one process.

    python benchmarks/norm_map.py --hidden_sizes=64,128 --num_steps=256

With --torch_every=16, PyTorch measures every 16th t only, and its time is scaled by the number of
pairs (the time of a pass is proportional to its steps).
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from timing import medians, print_head, print_row, set_up, with_torch
from torch_lstm import torch_log_norms

from gradflow.cells import lstm
from gradflow.flow import log_norm_map

INPUT_SIZE = 16

ROWS_TOGETHER = 512
"""Rows of one product: enough to fill the matrix unit, few enough for the cache."""

_HIDDEN_SIZES = flags.DEFINE_list("hidden_sizes", ["64", "128"], "Hidden sizes.")
_NUM_STEPS = flags.DEFINE_integer("num_steps", 256, "Length T of the sequence.", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 5, "Timed runs of each.", lower_bound=1)
_NORM = flags.DEFINE_enum("norm", "spectral", ["spectral", "frobenius"], "Which norm.")
_X64 = flags.DEFINE_boolean("x64", True, "Float64.")
_TORCH_EVERY = flags.DEFINE_integer(
    "torch_every", 1, "PyTorch measures one of so many t; its time is scaled.", lower_bound=1
)
_TORCH = flags.DEFINE_boolean("torch", True, "Measure PyTorch too if it is installed.")


def bare_products(hidden_size: int, num_steps: int) -> Callable[[], jax.Array]:
    """For each group of t, at each lag, one product of all rows with each gate's W_h."""
    group = max(1, ROWS_TOGETHER // hidden_size)
    lags = jnp.arange(num_steps, 0, -group)
    noise = jax.random.normal(jax.random.key(0), (4, hidden_size, hidden_size))
    weights = jnp.linalg.qr(noise)[0] / 4
    rows = jnp.tile(jnp.eye(hidden_size), (group, 1))

    def step(_: int, rows: jax.Array) -> jax.Array:
        i, f, g, o = (rows @ weight for weight in weights)
        return i + f + g + o

    @jax.jit
    def run(rows: jax.Array) -> jax.Array:
        return jax.lax.map(lambda lag: jax.lax.fori_loop(0, lag, step, rows)[0, 0], lags)

    return lambda: run(rows)


def contestants(hidden_size: int, times: range) -> dict[str, Callable]:
    """The runs at one hidden size; PyTorch measures the given times.

    Raises:
      ArithmeticError: If PyTorch's numbers differ from ours.
    """
    cell = lstm(INPUT_SIZE, hidden_size)
    params = cell.init(jax.random.key(0))
    inputs = jax.random.normal(jax.random.key(1), (_NUM_STEPS.value, INPUT_SIZE))
    norm = "spectral" if _NORM.value == "spectral" else "frobenius"  # a literal, not any string
    runs: dict[str, Callable] = {
        "log_norm_map": lambda: log_norm_map(cell, params, inputs, norm=norm),
        "bare products": bare_products(hidden_size, _NUM_STEPS.value),
    }
    if with_torch(_TORCH.value):
        runs["PyTorch"] = torch_log_norms(params, inputs, times, norm)
        off = np.nanmax(np.abs(runs["log_norm_map"]() - runs["PyTorch"]()))
        if not off < (1e-6 if _X64.value else 1e-3):
            raise ArithmeticError(f"Expected equal log norms, got a difference of {off:.1e} nats.")
    return runs


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    set_up(argv, x64=_X64.value)
    num_steps, every = _NUM_STEPS.value, _TORCH_EVERY.value
    times = range(num_steps, -1, -every)
    pairs = (num_steps + 1) * (num_steps + 2) // 2
    fraction = sum(t + 1 for t in times) / pairs
    print_head("hidden", "T", "pairs", "method", "seconds", "times ours")
    for hidden_size in map(int, _HIDDEN_SIZES.value):
        measured = medians(contestants(hidden_size, times), _REPEATS.value)
        if "PyTorch" in measured and every > 1:
            measured[f"PyTorch, from every {every}th t"] = measured.pop("PyTorch") / fraction
        for label, taken in measured.items():
            ratio = taken / measured["log_norm_map"]
            print_row(hidden_size, num_steps, pairs, label, f"{taken:.3f}", f"{ratio:.2f}x")


if __name__ == "__main__":
    app.run(main)
