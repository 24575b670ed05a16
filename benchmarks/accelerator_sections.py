"""The sections of accelerator.py: each measures at some sizes and yields the rows of a table."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from contestants import Shape, bare_products, compiled, flax_gradient, gradient, torch_run
from timing import medians, with_torch

from gradflow import flow
from gradflow.cells import CELLS, lstm, rnn
from gradflow.devices import map_runs

Row = Mapping[str, Any]
"""What was measured at one point, by the titles of the table's columns."""

PRECISIONS = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": "default"}
"""JAX's precision of a product for each precision of a training."""


class Sizes(NamedTuple):
    """The sizes of all sections.

    Attributes:
      exact: Hidden units and steps.
      train: Shapes, as `Shape.parse` reads them.
      long: Shapes of long sequences.
      flow: Pairs of hidden units and steps.
      map: Hidden units and steps.
      sweep: Gains, seeds, hidden units and steps.
      scan: One shape.
      unrolls: Factors by which its loops are unrolled.
      cells: The cells of ``exact`` and ``train``; all but the last, those of ``long``.
      repeats: Timed runs of each contestant.
    """

    exact: tuple[int, int]
    train: tuple[str, ...]
    long: tuple[str, ...]
    flow: tuple[tuple[int, int], ...]
    map: tuple[int, int]
    sweep: tuple[int, int, int, int]
    scan: str
    unrolls: tuple[int, ...]
    cells: tuple[str, ...]
    repeats: int


FULL = Sizes(
    exact=(64, 200),
    train=("32x200x64x128", "32x96x128x512", "16x1024x64x256"),
    long=tuple(f"{batch}x1024x128x{hidden}" for hidden in (512, 768) for batch in (16, 64)),
    flow=((256, 200), (1024, 100), (4096, 10)),
    map=(256, 256),
    sweep=(40, 10, 100, 200),
    scan="16x1024x64x256",
    unrolls=(1, 2, 4, 8, 16),
    cells=("lstm", "gru", "rnn"),
    repeats=5,
)
SMALLEST = Sizes(
    exact=(6, 12),
    train=("2x8x3x8",),
    long=("2x32x3x8",),
    flow=((16, 10),),
    map=(8, 12),
    sweep=(4, 2, 8, 60),
    scan="2x16x3x8",
    unrolls=(1, 2),
    cells=("gru", "rnn"),
    repeats=2,
)


def exact(sizes: Sizes) -> Iterator[Row]:
    """Largest differences from the same program in float64 on the CPU."""
    hidden, num_steps = sizes.exact
    host = jax.devices("cpu")[0]
    measures: dict[str, Callable[..., Any]] = {
        "log_norms": flow.log_norms,
        "log_norm_map": flow.log_norm_map,
        "log_singular_values": lambda c, p, x: flow.log_singular_values(c, p, x[:20])[:, :3],
        "lyapunov_exponents": lambda c, p, x: flow.lyapunov_exponents(c, p, x).exponents,
    }
    for name in sizes.cells:
        cell = CELLS[name](3, hidden)
        with jax.default_device(host):
            given = (
                cell.init(jax.random.key(0)),
                jax.random.normal(jax.random.key(1), (num_steps, 3)),
            )
            given = jax.tree.map(np.asarray, given)
        for measurement, measure in measures.items():
            with jax.default_device(host):
                truth = np.asarray(measure(cell, *jax.tree.map(jnp.asarray, given)))
            found = {}
            for dtype in ("float64", "float32"):
                arguments = jax.tree.map(lambda leaf, d=dtype: jnp.asarray(leaf, d), given)
                off = np.abs(np.asarray(measure(cell, *arguments)) - truth)
                found[dtype] = f"{np.nanmax(np.where(np.isinf(truth), 0, off)):.1e}"
            yield {"cell": name, "what": measurement, **found}
        yield {
            "cell": name,
            "what": "gradient (relative, in norm)",
            **gradient_errors(name, sizes, host),
        }


def gradient_errors(name: str, sizes: Sizes, host: Any) -> dict[str, str]:
    """The largest relative difference, in norm, of a leaf of the gradient from the plain scan."""
    shape = Shape.parse(sizes.train[0])

    def result(dtype: Any) -> list[np.ndarray]:
        with jax.default_matmul_precision("highest"):
            jitted, arguments = gradient(name, shape, "auto", dtype=dtype)
            return jax.tree.map(np.asarray, jax.tree.leaves(jitted(*arguments)))

    with jax.default_device(host):
        jitted, arguments = gradient(name, shape, "scan", dtype=jnp.float64)
        truth = jax.tree.map(np.asarray, jax.tree.leaves(jitted(*arguments)))
    return {
        dtype: f"{max(map(relative, result(dtype), truth)):.1e}" for dtype in ("float64", "float32")
    }


def relative(found: np.ndarray, truth: np.ndarray) -> float:
    """The norm of a difference over that of the truth."""
    return float(np.linalg.norm(found - truth) / max(np.linalg.norm(truth), 1e-30))


def trained(cells: Sequence[str], shapes: Sequence[str], repeats: int) -> Iterator[Row]:
    """Milliseconds of a gradient, by precision; the cuDNN kernels that took the most time."""
    for precision in PRECISIONS:
        for name in cells:
            for text in shapes:
                yield one_training(precision, name, text, repeats)


def one_training(precision: str, name: str, text: str, repeats: int) -> Row:
    """The times of all contestants at one point."""
    shape, runs = Shape.parse(text), {}
    dtype = jnp.bfloat16 if precision == "bfloat16" else jnp.float32
    methods = ("joined", "scan", "planned") if precision == "float32" else ("joined", "planned")
    with jax.default_matmul_precision(PRECISIONS[precision]):
        for method in methods:
            runs[method] = compiled(*gradient(name, shape, method, dtype=dtype))
        if precision == "float32":
            runs["Flax"] = compiled(*flax_gradient(name, shape))
    taken, kernels = medians(runs, repeats), ""
    if with_torch():  # apart, because on a CPU its threads spin on after a run
        run = torch_in(precision, name, shape)
        taken |= medians({"PyTorch": run}, repeats)
        kernels = torch_kernels(run)
    times = {f"{peer}, ms": f"{1e3 * seconds:.2f}" for peer, seconds in taken.items()}
    blank = dict.fromkeys([f"{peer}, ms" for peer in ("joined", "scan", "planned", "Flax")], "")
    row = {"cell": name, "shape": text, "precision": precision, **blank, **times}
    return row | ({"PyTorch's longest kernel": kernels} if kernels else {})


def torch_in(precision: str, name: str, shape: Shape) -> Callable[[], None]:
    """PyTorch's run on a GPU if it has one, in the precision."""
    import torch  # pyright: ignore[reportMissingImports]

    for backend in (torch.backends.cuda.matmul, torch.backends.cudnn):
        backend.allow_tf32 = precision == "tf32"  # pyright: ignore[reportAttributeAccessIssue]
    dtype = "bfloat16" if precision == "bfloat16" else "float32"
    return torch_run(name, shape, "cuda" if torch.cuda.is_available() else "cpu", dtype)


def torch_kernels(run: Callable[[], None]) -> str:
    """The name of the kernel that takes the most time: it tells cuDNN's algorithm."""
    from torch import cuda, profiler  # pyright: ignore[reportMissingImports]

    kinds = profiler.ProfilerActivity
    run()
    with profiler.profile(activities=[kinds.CUDA if cuda.is_available() else kinds.CPU]) as profile:
        run()
    own = "self_device_time_total" if cuda.is_available() else "self_cpu_time_total"
    events = sorted(profile.key_averages(), key=lambda event: -getattr(event, own, 0))
    return events[0].key.replace("|", "/")[:60] if events else "unknown"


def train(sizes: Sizes) -> Iterator[Row]:
    """The grid of train.py."""
    return trained(sizes.cells, sizes.train, sizes.repeats)


def long(sizes: Sizes) -> Iterator[Row]:
    """Large networks on long sequences."""
    return trained(sizes.cells[:-1], sizes.long, sizes.repeats)


def flow_times(sizes: Sizes) -> Iterator[Row]:
    """Seconds of `log_norms` of an LSTM, and of its matrix products alone."""
    for dtype in (jnp.float32, jnp.float64):
        for hidden, num_steps in sizes.flow:
            cell = lstm(16, hidden)
            given = (
                cell.init(jax.random.key(0)),
                jax.random.normal(jax.random.key(1), (num_steps, 16)),
            )
            params, inputs = jax.tree.map(lambda leaf, d=dtype: leaf.astype(d), given)
            runs = {
                "bare products": bare_products(params, num_steps),
                "log_norms": partial(flow.log_norms, cell, params, inputs),
                "frobenius": partial(flow.log_norms, cell, params, inputs, norm="frobenius"),
            }
            found = medians(runs, sizes.repeats)
            times = {f"{name}, s": f"{taken:.4f}" for name, taken in found.items()}
            ratio = f"{found['log_norms'] / found['bare products']:.2f}"
            yield {"hidden": hidden, "T": num_steps, "precision": dtype.__name__, **times} | {
                "log_norms / bare": ratio
            }


def map_times(sizes: Sizes) -> Iterator[Row]:
    """Seconds of `log_norm_map` of an LSTM."""
    hidden, num_steps = sizes.map
    for dtype in (jnp.float32, jnp.float64):
        cell = lstm(16, hidden)
        given = cell.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (num_steps, 16))
        params, inputs = jax.tree.map(lambda leaf, d=dtype: leaf.astype(d), given)
        found = medians({"map": partial(flow.log_norm_map, cell, params, inputs)}, sizes.repeats)
        row = {"hidden": hidden, "T": num_steps, "precision": dtype.__name__}
        yield row | {"log_norm_map, s": f"{found['map']:.3f}"}


def sweep(sizes: Sizes) -> Iterator[Row]:
    """Milliseconds per run of the largest exponent for many gains and seeds in one program."""
    gains, seeds, hidden, num_steps = sizes.sweep
    cell = rnn(16, hidden, recurrent_init="normal")
    for dtype in (jnp.float32, jnp.float64):
        keys = jax.random.split(jax.random.key(0), gains * seeds)
        gain = jnp.repeat(jnp.linspace(0.2, 3.0, gains, dtype=dtype), seeds)
        inputs = 0.1 * jax.random.normal(jax.random.key(1), (num_steps, 16), dtype)

        def one(key: jax.Array, gain: jax.Array, inputs: jax.Array = inputs) -> jax.Array:
            params = jax.tree.map(lambda leaf: leaf.astype(inputs.dtype), cell.init(key))
            params["W_h"] *= gain
            found = flow.lyapunov_exponents(cell, params, inputs, num_exponents=1, burn_in=50)
            return found.exponents[0]

        run = partial(jax.jit(map_runs(one)), keys, gain)
        per_run = 1e3 * medians({"sweep": run}, sizes.repeats)["sweep"] / len(keys)
        row = {"runs": len(keys), "hidden": hidden, "T": num_steps, "precision": dtype.__name__}
        yield row | {"per run, ms": f"{per_run:.4f}"}


def scan(sizes: Sizes) -> Iterator[Row]:
    """Milliseconds of a gradient in float32 by the factor by which all its loops are unrolled."""
    shape, plain = Shape.parse(sizes.scan), jax.lax.scan
    for method in ("joined", "planned"):
        runs = {}
        for unroll in sizes.unrolls:
            with mock.patch.object(jax.lax, "scan", partial(plain, unroll=unroll)):
                runs[f"unroll {unroll}, ms"] = compiled(*gradient(sizes.cells[0], shape, method))
        times = {name: f"{1e3 * taken:.2f}" for name, taken in medians(runs, sizes.repeats).items()}
        yield {"cell": sizes.cells[0], "shape": sizes.scan, "method": method, **times}
