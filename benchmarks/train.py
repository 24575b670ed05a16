"""Forward and backward pass of mean(h²): the planned unroll, the plain scan, Flax and PyTorch.

float32; the gradient by the parameters. Each contestant is a process of its own, which compiles,
runs once, and then runs on demand. They alternate, and the median is taken. The gradients of plan
and scan are compared.

    JAX_NUM_CPU_DEVICES=2 python benchmarks/train.py --cells=lstm,gru,rnn --repeats=7
    python benchmarks/train.py --peers=scan,plan8,plan32,plan128
    python benchmarks/train.py --memory

With a device per core, as in the studies, ours distribute the batch over them; PyTorch has a thread
per core, and Flax one device with all threads, as without that setting. The second command compares
lengths of the plan's segments. With --memory, the temporary memory of the compiled programs is
printed, which needs no idle machine.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags
from contestants import Shape, compiled, flax_gradient, gradient, torch_run
from timing import answer, medians_of_processes, print_head, print_row, set_up, with_torch

from gradflow.unroll.rules import RULES, rules

SHAPES = "32x200x64x128,32x96x128x512,16x1024x64x256,128x96x64x128,1x1000x32x64,16x784x1x128"

_CELLS = flags.DEFINE_list("cells", ["lstm", "gru", "rnn"], "Cells; Flax and PyTorch have these.")
_SHAPES = flags.DEFINE_list("shapes", SHAPES, "Each as batch x T x input x hidden.")
_PEERS = flags.DEFINE_list(
    "peers",
    ["auto", "scan", "flax", "torch"],
    "Contestants: auto, scan, joined, plan, plan and the steps of a segment such as plan8, flax, "
    "torch.",
)
_REPEATS = flags.DEFINE_integer("repeats", 7, "Timed runs of each.", lower_bound=1)
_MEMORY = flags.DEFINE_boolean("memory", False, "Print temporary memory instead of times.")
_WORKER = flags.DEFINE_string("worker", None, "Run as this contestant; used by the script itself.")


def run_of(peer: str, name: str, shape: Shape) -> Callable[[], Any]:
    """Makes the run of a contestant."""
    if peer == "torch":
        return torch_run(name, shape)
    if peer == "flax":
        jitted, arguments = flax_gradient(name, shape)
    else:
        if peer.removeprefix("plan").isdigit():
            backend, steps = jax.default_backend(), int(peer.removeprefix("plan"))
            RULES[backend] = rules()._replace(segment=steps)
        jitted, arguments = gradient(name, shape, "planned" if peer.startswith("plan") else peer)
    return compiled(jitted, arguments)


def measured(name: str, shape: str, peers: Sequence[str]) -> dict[str, float]:
    """The median time of each contestant in seconds."""
    flags_of = [__file__, f"--cells={name}", f"--shapes={shape}"]
    commands = {peer: [*flags_of, f"--worker={peer}"] for peer in peers}
    return medians_of_processes(commands, _REPEATS.value)


def gradient_error(name: str, shape: Shape) -> float:
    """The largest relative difference, in norm, of a gradient of the plan from the scan's."""
    results = []
    for method in ("planned", "scan"):
        jitted, arguments = gradient(name, shape, method)
        results.append(jitted(*arguments))
    errors = jax.tree.map(
        lambda a, b: jnp.linalg.norm(a - b) / jnp.maximum(jnp.linalg.norm(b), 1e-30), *results
    )
    return float(max(jax.tree.leaves(errors)))


def print_memory() -> None:
    """Prints the temporary memory of the compiled gradients."""
    print_head("cell", "shape", "method", "remat", "MB", "of the plain scan's")
    for name in _CELLS.value:
        for shape in _SHAPES.value:
            plain = None
            for method in ("scan", "planned"):
                for remat in ("none", "step", "sqrt"):
                    jitted, arguments = gradient(name, Shape.parse(shape), method, remat)
                    analysis = jitted.lower(*arguments).compile().memory_analysis()
                    size = analysis.temp_size_in_bytes / 1e6
                    plain = plain or size
                    print_row(name, shape, method, remat, f"{size:.1f}", f"{size / plain:.2f}")


def print_times(peers: Sequence[str]) -> None:
    """Prints the times, relative to the first contestant's too, and geometric means of ratios."""
    ratios: dict[str, list[float]] = {peer: [] for peer in peers[1:]}
    times = (f"{peer}, ms" for peer in peers)
    print_head("cell", "shape", *times, *(f"{peer} / {peers[0]}" for peer in ratios), "error")
    for name in _CELLS.value:
        for shape in _SHAPES.value:
            taken = measured(name, shape, peers)
            for peer in ratios:
                ratios[peer].append(taken[peer] / taken[peers[0]])
            entries = [f"{1e3 * taken[peer]:.1f}" for peer in peers]
            entries += [f"{ratios[peer][-1]:.2f}" for peer in ratios]
            error = gradient_error(name, Shape.parse(shape))
            print_row(name, shape, *entries, f"{error:.0e}")
    means = (f"{math.exp(statistics.fmean(map(math.log, each))):.2f}" for each in ratios.values())
    print_row("geometric mean", "", *[""] * len(peers), *means, "")


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    set_up(argv, x64=False)
    if _WORKER.value:
        if _WORKER.value == "flax":  # it would not use a second device, and has more threads so
            jax.config.update("jax_num_cpu_devices", 1)
        answer(run_of(_WORKER.value, _CELLS.value[0], Shape.parse(_SHAPES.value[0])))
    elif _MEMORY.value:
        print_memory()
    else:
        print_times([peer for peer in _PEERS.value if with_torch() or peer != "torch"])


if __name__ == "__main__":
    app.run(main)
