"""The log norms of every pair of an LSTM, against its bare matrix products and against PyTorch.

The bare products are those that form ∂h_t/∂h_k for every pair, step by step, in a jitted loop
with nothing beside them. PyTorch, where it is installed, does it with care: a batched reverse pass
from every t, which gives ∂h_t/∂h_k for all k at once, and one batched matrix norm for each t.
All run in one process, in turns, and the median is taken. Every row is one of a Markdown table:

    python benchmarks/norm_map.py --hidden_sizes=64,128 --num_steps=256

With --torch_every=16, PyTorch goes through every 16th t alone, and its time is scaled by the number
of pairs (a pass costs as much as it has steps).
"""

import importlib.util
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from turns import medians

from gradflow.cell import Params
from gradflow.cells import lstm
from gradflow.flow.norm_map import log_norm_map
from gradflow.flow.norms import Norm

INPUT_SIZE = 16

ROWS_TOGETHER = 512
"""Rows that go through a step at once: enough to fill the matrix unit, few enough for the cache."""

_HIDDEN_SIZES = flags.DEFINE_list("hidden_sizes", ["64", "128"], "Hidden sizes.")
_NUM_STEPS = flags.DEFINE_integer("num_steps", 256, "Length T of the sequence.", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 5, "Runs of each, in turns.", lower_bound=1)
_NORM = flags.DEFINE_enum("norm", "spectral", ["spectral", "frobenius"], "Which norm.")
_X64 = flags.DEFINE_boolean("x64", True, "Float64.")
_TORCH_EVERY = flags.DEFINE_integer(
    "torch_every", 1, "PyTorch measures one t of so many; its time is scaled.", lower_bound=1
)
_TORCH = flags.DEFINE_boolean("torch", True, "Measure PyTorch too, where it is installed.")


def bare_products(hidden_size: int, num_steps: int) -> Callable[[], jax.Array]:
    """For each group of t, at each of its lags, one product of all rows with each gate's W_h."""
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


def torch_times(num_steps: int) -> range:
    """The t that PyTorch goes through, down from T."""
    return range(num_steps, -1, -_TORCH_EVERY.value)


def torch_share(num_steps: int) -> float:
    """The share of the pairs that these have."""
    return sum(t + 1 for t in torch_times(num_steps)) / sum(range(1, num_steps + 2))


def torch_map(params: Params, inputs: jax.Array, norm: Norm) -> Callable[[], np.ndarray]:
    """Batched reverse mode from h_t to all h_k, c_k held fixed, for one t after the other."""
    import torch  # pyright: ignore[reportMissingImports]

    def joined(name: str) -> "torch.Tensor":
        return torch.tensor(np.concatenate([params[gate][name] for gate in "ifgo"]))

    W_x, W_h, b = (joined(name) for name in ("W_x", "W_h", "b"))
    drive = torch.tensor(np.asarray(inputs)) @ W_x.T + b
    size = W_h.shape[1]
    rows = torch.eye(size, dtype=W_h.dtype)

    def run() -> np.ndarray:
        h = [torch.zeros(size, dtype=W_h.dtype, requires_grad=True)]
        c = torch.zeros(size, dtype=W_h.dtype)
        for x in drive:
            i, f, g, o = (x + W_h @ h[-1]).chunk(4)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h.append(torch.sigmoid(o) * torch.tanh(c))
        log_norms = np.full((len(h), len(h)), np.nan)
        for t in torch_times(len(h) - 1):
            blocks = torch.autograd.grad(
                h[t], h[: t + 1], rows, is_grads_batched=True, retain_graph=True
            )
            sizes = torch.linalg.matrix_norm(
                torch.stack(blocks), 2 if norm == "spectral" else "fro"
            )
            log_norms[t, : t + 1] = torch.log(sizes).numpy()
        return log_norms

    return run


def contestants(hidden_size: int, norm: Norm) -> dict[str, Callable]:
    """What is timed, ours first."""
    cell = lstm(INPUT_SIZE, hidden_size)
    params = cell.init(jax.random.key(0))
    inputs = jax.random.normal(jax.random.key(1), (_NUM_STEPS.value, INPUT_SIZE))
    runs: dict[str, Callable] = {
        "log_norm_map": lambda: log_norm_map(cell, params, inputs, norm=norm),
        "bare products": bare_products(hidden_size, _NUM_STEPS.value),
    }
    if _TORCH.value and importlib.util.find_spec("torch"):
        runs["PyTorch"] = torch_map(params, inputs, norm)
        off = np.nanmax(np.abs(runs["log_norm_map"]() - runs["PyTorch"]()))
        if not off < (1e-6 if _X64.value else 1e-3):
            raise ArithmeticError(f"equal log norms are expected, got a difference of {off:.1e}")
    return runs


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    if len(argv) > 1:
        raise app.UsageError(f"no arguments beside the flags are expected, got {argv[1:]}")
    jax.config.update("jax_enable_x64", _X64.value)
    num_steps = _NUM_STEPS.value
    pairs = (num_steps + 1) * (num_steps + 2) // 2
    print("| hidden | T | pairs | method | seconds | times ours |")
    print("|---" * 6 + "|")
    for hidden_size in map(int, _HIDDEN_SIZES.value):
        norm = "spectral" if _NORM.value == "spectral" else "frobenius"
        measured = medians(contestants(hidden_size, norm), _REPEATS.value)
        ours = measured["log_norm_map"]
        if "PyTorch" in measured and _TORCH_EVERY.value > 1:
            scaled = measured.pop("PyTorch") / torch_share(num_steps)
            measured[f"PyTorch, from every {_TORCH_EVERY.value}th t"] = scaled
        for label, taken in measured.items():
            row = f"| {hidden_size} | {num_steps} | {pairs} | {label} | {taken:.3f} "
            print(row + f"| {taken / ours:.2f}x |", flush=True)


if __name__ == "__main__":
    app.run(main)
