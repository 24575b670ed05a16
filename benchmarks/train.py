"""Forward and backward of mean(h²): the planned unroll, its plain scan, Flax and PyTorch.

float32; the gradient is that of the parameters. Each contestant has a process of its own, which
compiles, runs once, and then waits to be told to run again; they are told in turns, and the median
is taken. The gradients of the two ways of ours are compared, and the temporary memory of their
compiled programs is printed with --memory (also by remat), which needs no idle machine.

    JAX_NUM_CPU_DEVICES=2 python benchmarks/train.py --cells=lstm,gru,rnn --repeats=7

With a device a core, as the studies have it, ours share the batch out to them; PyTorch has a thread
a core, and Flax is on one device with all threads, as without that setting.
"""

import importlib.util
import math
import statistics
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags
from passes import Shape, gradient, ready
from turns import answer, medians_of_processes

SHAPES = "32x200x64x128,32x96x128x512,16x1024x64x256,128x96x64x128,1x1000x32x64,16x784x1x128"
OURS = {"planned": ("planned", "none"), "scan": ("scan", "none"), "auto": ("auto", "none")}

_CELLS = flags.DEFINE_list("cells", ["lstm", "gru", "rnn"], "Cells; Flax and PyTorch have these.")
_SHAPES = flags.DEFINE_list("shapes", SHAPES, "Each as batch x T x input x hidden.")
_PEERS = flags.DEFINE_list("peers", ["auto", "scan", "flax", "torch"], "Who is timed.")
_REPEATS = flags.DEFINE_integer("repeats", 7, "Runs of each, in turns.", lower_bound=1)
_MEMORY = flags.DEFINE_boolean("memory", False, "Print temporary memory, and time nothing.")
_WORKER = flags.DEFINE_string("worker", None, "Be this peer: for the script's own use.")


def flax(name: str, shape: Shape) -> tuple[Any, tuple[Any, Any]]:
    """The same of Flax Linen's cell, time-major."""
    from flax import linen as nn

    kinds = {"lstm": nn.OptimizedLSTMCell, "gru": nn.GRUCell, "rnn": nn.SimpleCell}
    model = nn.RNN(kinds[name](shape.hidden_size), time_major=True)
    inputs = jax.random.normal(jax.random.key(1), shape.inputs)
    params = model.init(jax.random.key(0), inputs)
    return jax.jit(jax.grad(lambda p, x: jnp.mean(jnp.square(jnp.asarray(model.apply(p, x)))))), (
        params,
        inputs,
    )


def torch_run(name: str, shape: Shape) -> Callable[[], None]:
    """The same of PyTorch's layer."""
    import torch  # pyright: ignore[reportMissingImports]

    kinds = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}
    model, inputs = kinds[name](shape.input_size, shape.hidden_size), torch.randn(shape.inputs)

    def run() -> None:
        model.zero_grad()
        (model(inputs)[0] ** 2).mean().backward()

    return run


def run_of(peer: str, name: str, shape: Shape) -> Callable[[], Any]:
    """What a peer runs."""
    if peer == "torch":
        return torch_run(name, shape)
    return ready(*(flax(name, shape) if peer == "flax" else gradient(name, shape, *OURS[peer])))


def measured(name: str, shape: str, peers: Sequence[str]) -> dict[str, float]:
    """The median time of each peer in seconds, each in its own process, in turns."""
    flags_of = [__file__, f"--cells={name}", f"--shapes={shape}"]
    commands = {peer: [*flags_of, f"--worker={peer}"] for peer in peers}
    return medians_of_processes(commands, _REPEATS.value)


def gradient_error(name: str, shape: Shape) -> float:
    """The greatest error of planned gradients, relative to the norm of each one."""
    results = []
    for method in ("planned", "scan"):
        jitted, arguments = gradient(name, shape, method)
        results.append(jitted(*arguments))
    errors = jax.tree.map(
        lambda a, b: jnp.linalg.norm(a - b) / jnp.maximum(jnp.linalg.norm(b), 1e-30), *results
    )
    return float(max(jax.tree.leaves(errors)))


def memory_rows(name: str, shape: str) -> list[str]:
    """Temporary memory of the compiled gradients, and of the forward pass alone, in MB."""
    sizes = {}
    for method in ("scan", "planned"):
        for remat in ("none", "step", "sqrt"):
            jitted, arguments = gradient(name, Shape.parse(shape), method, remat)
            analysis = jitted.lower(*arguments).compile().memory_analysis()
            sizes[method, remat] = analysis.temp_size_in_bytes / 1e6
    plain = sizes["scan", "none"]
    return [
        f"| {name} | {shape} | {method} | {remat} | {size:.1f} | {size / plain:.2f} |"
        for (method, remat), size in sizes.items()
    ]


def table(cells: Sequence[str], shapes: Sequence[str], peers: Sequence[str]) -> list[str]:
    """A row for each cell and shape; times relative to the first peer's, and their means."""
    ratios: dict[str, list[float]] = {peer: [] for peer in peers[1:]}
    heads = [f"{peer}, ms" for peer in peers] + [f"{peer} / {peers[0]}" for peer in ratios]
    rows = [f"| cell | shape | {' | '.join(heads)} | error |", "|---" * (len(heads) + 3) + "|"]
    for name in cells:
        for shape in shapes:
            times = measured(name, shape, peers)
            for peer in ratios:
                ratios[peer].append(times[peer] / times[peers[0]])
            entries = [f"{1e3 * times[peer]:.1f}" for peer in peers]
            entries += [f"{ratios[peer][-1]:.2f}" for peer in ratios]
            error = gradient_error(name, Shape.parse(shape))
            rows.append(f"| {name} | {shape} | {' | '.join(entries)} | {error:.0e} |")
            print(rows[-1], file=sys.stderr, flush=True)
    means = [f"{math.exp(statistics.fmean(map(math.log, r))):.2f}" for r in ratios.values()]
    return [*rows, f"| geometric mean | {' |' * len(peers)} {' | '.join(means)} | |"]


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    del argv
    if _WORKER.value:
        if _WORKER.value == "flax":  # would not use a second one, and has more threads without it
            jax.config.update("jax_num_cpu_devices", 1)
        answer(run_of(_WORKER.value, _CELLS.value[0], Shape.parse(_SHAPES.value[0])))
    elif _MEMORY.value:
        print("| cell | shape | method | remat | MB | of the plain scan's |\n" + "|---" * 6 + "|")
        for name in _CELLS.value:
            for shape in _SHAPES.value:
                print("\n".join(memory_rows(name, shape)))
    else:
        here = [p for p in _PEERS.value if p != "torch" or importlib.util.find_spec("torch")]
        print("\n".join(table(_CELLS.value, _SHAPES.value, here)))


if __name__ == "__main__":
    app.run(main)
