"""`log_norms` of an LSTM at every lag against its bare matrix products and against PyTorch.

One sequence, float64, spectral norm. The bare products are as many as the sweep needs and of the
same shapes, four a step, in a jitted loop with a sum beside them. PyTorch does it with care: one
batched reverse pass from h_T, which gives ∂h_T/∂h_k for all k at once, and one batched matrix
norm. All run in one process, in turns; the median is taken of the runs after a first that is
not counted.

    python benchmarks/flow.py --num_steps=200,1000
"""

import importlib.util
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from turns import medians

from gradflow import flow
from gradflow.cell import Params
from gradflow.cells import lstm, rnn
from gradflow.devices import map_runs

INPUT_SIZE = 16

_HIDDEN_SIZE = flags.DEFINE_integer("hidden_size", 256, "Hidden units.", lower_bound=1)
_NUM_STEPS = flags.DEFINE_list("num_steps", ["200", "1000"], "Lengths T of the sequence.")
_BATCH = flags.DEFINE_integer("batch", 16, "Sequences in one call, beside one.", lower_bound=1)
_TORCH = flags.DEFINE_boolean("torch", True, "Measure PyTorch too, where it is installed.")
_REPEATS = flags.DEFINE_integer("repeats", 5, "Runs of each, in turns.", lower_bound=1)


def bare_products(params: Params, num_steps: int) -> Callable[[], jax.Array]:
    """M ← M W_h^i + M W_h^f + M W_h^g + M W_h^o, as often as there are steps."""
    weights = [params[gate]["W_h"] / 4 for gate in "ifgo"]

    @jax.jit
    def run(rows: jax.Array) -> jax.Array:
        def step(_: int, rows: jax.Array) -> jax.Array:
            return sum((rows @ weight for weight in weights), jnp.zeros_like(rows))

        return jax.lax.fori_loop(0, num_steps, step, rows)

    return partial(run, jnp.eye(len(weights[0])))


def torch_log_norms(params: Params, inputs: jax.Array) -> Callable[[], np.ndarray]:
    """Batched reverse mode from h_T to all h_k, c_k held fixed; then `matrix_norm`."""
    import torch  # pyright: ignore[reportMissingImports]

    def joined(name: str) -> "torch.Tensor":
        return torch.tensor(np.concatenate([params[gate][name] for gate in "ifgo"]))

    W_x, W_h, b = joined("W_x"), joined("W_h"), joined("b")
    hidden_size = W_h.shape[1]
    x = torch.tensor(np.asarray(inputs))
    unit = torch.eye(hidden_size, dtype=x.dtype)

    def run() -> np.ndarray:
        h = torch.zeros(hidden_size, dtype=x.dtype, requires_grad=True)
        c, visited = torch.zeros_like(h), [h]
        for projected in x @ W_x.T + b:
            i, f, g, o = (projected + W_h @ h).split(hidden_size)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            visited.append(h)
        blocks = torch.autograd.grad(h, visited[:-1], unit, is_grads_batched=True)
        sizes = torch.linalg.matrix_norm(torch.stack([*blocks, unit]), 2)
        return torch.log(sizes).flip(0).numpy()

    return run


def contestants(num_steps: int) -> dict[str, Callable]:
    """What is timed at one length: every value is a run, and its result ignored."""
    cell = lstm(INPUT_SIZE, _HIDDEN_SIZE.value)
    params = cell.init(jax.random.key(0))
    inputs = jax.random.normal(jax.random.key(1), (_BATCH.value, num_steps, INPUT_SIZE))
    measure = partial(flow.log_norms, cell, params)
    runs: dict[str, Callable] = {
        "bare products": bare_products(params, num_steps),
        "log_norms": partial(measure, inputs[0]),
        f"log_norms, batch {_BATCH.value}": partial(jax.jit(map_runs(measure)), inputs),
    }
    if _TORCH.value and importlib.util.find_spec("torch"):
        runs["PyTorch"] = torch_log_norms(params, inputs[0])
        off = np.abs(runs["PyTorch"]() - runs["log_norms"]()).max()
        print(f"T = {num_steps}: the two agree within {off:.1e} nats")
    return runs


def below_the_smallest_float() -> str:
    """The relative error at lag 5000 of a linear cell of gain 0.3, in both precisions."""
    cell = rnn(1, 16, activation="identity", recurrent_init="orthogonal(gain=0.3)")
    errors = []
    for dtype in (jnp.float64, jnp.float32):
        params = jax.tree.map(lambda leaf, to=dtype: leaf.astype(to), cell.init(jax.random.key(0)))
        last = flow.log_norms(cell, params, jnp.zeros((5000, 1), dtype))[-1]
        errors.append(abs(float(last) / (5000 * np.log(0.3)) - 1))
    return f"gain 0.3, lag 5000: off by {errors[0]:.1e} in float64, {errors[1]:.1e} in float32"


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    del argv
    jax.config.update("jax_enable_x64", True)
    print(below_the_smallest_float())
    rows = ["| T | what | seconds | of bare products |", "|---|---|---|---|"]
    for num_steps in map(int, _NUM_STEPS.value):
        times = medians(contestants(num_steps), _REPEATS.value)
        bare = times["bare products"]
        rows += [f"| {num_steps} | {k} | {v:.3f} | {v / bare:.2f} |" for k, v in times.items()]
    print("\n".join(rows))


if __name__ == "__main__":
    app.run(main)
