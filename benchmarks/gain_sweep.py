"""The gain sweep of experiments/exploding, against a Python loop over jitted single runs.

Both compute the largest Lyapunov exponent for every gain and seed, from one tangent vector that is
normalised at every step. The first loop traces the gain, so that it compiles once; the second one
makes a new cell for each gain, as `resolve("rnn(recurrent_init='normal(gain=1.2)')")` does, which
compiles for each. The loops are timed on a part of the runs. The rows are milliseconds per run
without and with compilation, and the speed of the sweep relative to each loop.

    python benchmarks/gain_sweep.py --cell=tanh
"""

import importlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
from absl import app, flags
from jaxtyping import Array
from timing import medians, print_head, print_row, set_up

from gradflow import Cell, Params
from gradflow.cells import resolve
from gradflow.flow import lyapunov_exponents

_CELL = flags.DEFINE_string("cell", "tanh", "Of linear, relu, tanh, lstm and gru.")
_NUM_GAINS = flags.DEFINE_integer("num_gains", 40, "Gains of the sweep.", lower_bound=1)
_NUM_SEEDS = flags.DEFINE_integer("num_seeds", 10, "Networks per gain.", lower_bound=1)
_HIDDEN_SIZE = flags.DEFINE_integer("hidden_size", 100, "Hidden units.", lower_bound=1)
_NUM_STEPS = flags.DEFINE_integer("num_steps", 200, "Steps of a run.", lower_bound=51)
_LOOP_RUNS = flags.DEFINE_integer("loop_runs", 40, "Runs of the loop that are timed.")
_REPEATS = flags.DEFINE_integer("repeats", 5, "Timed runs of each.", lower_bound=1)

BURN_IN = 50


def single_run(cell: Cell) -> Callable[[Params, Array, Array], Array]:
    """A jitted single run of a network whose W_h is multiplied by the gain."""

    @jax.jit
    def one(params: Params, x: Array, gain: Array) -> Array:
        params = jax.tree_util.tree_map_with_path(
            lambda path, leaf: gain * leaf if path[-1].key == "W_h" else leaf, params
        )
        found = lyapunov_exponents(cell, params, x, num_exponents=1, burn_in=BURN_IN, qr_every=1)
        return found.exponents[0]

    return one


def seconds(run: Callable[[], object]) -> float:
    """The wall time of one call, with compilation if it is the first one."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    set_up(argv)
    sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))
    networks = importlib.import_module("exploding.networks")
    measuring = importlib.import_module("exploding.measuring")
    build = resolve(networks.NETS[_CELL.value].spec)
    cell = build(16, _HIDDEN_SIZE.value)
    params = jax.vmap(cell.init)(jax.random.split(jax.random.key(0), _NUM_SEEDS.value))
    shape = _NUM_SEEDS.value, _NUM_STEPS.value, 16
    inputs = 0.1 * jax.random.normal(jax.random.key(1), shape)
    gains = jnp.linspace(0.2, 3.0, _NUM_GAINS.value)
    scaled = networks.scaled(_CELL.value, 16, _HIDDEN_SIZE.value)
    sweep = jax.jit(lambda p, x: measuring.exponents_by_gain(scaled, gains, p, x, BURN_IN))
    points = [(s, g) for s in range(_NUM_SEEDS.value) for g in range(_NUM_GAINS.value)]
    points = points[:: max(1, len(points) // _LOOP_RUNS.value)]
    runs = [(jax.tree.map(lambda a, s=s: a[s], params), inputs[s], gains[g]) for s, g in points]
    one = single_run(cell)
    contestants = {
        "sweep": lambda: sweep(params, inputs),
        "loop": lambda: [one(*run) for run in runs],
    }
    compiling_sweep = seconds(contestants["sweep"])
    compiling_one = seconds(lambda: single_run(build(16, _HIDDEN_SIZE.value))(*runs[0]))
    times = medians(contestants, _REPEATS.value)
    whole = sweep(params, inputs)
    of_sweep, of_loop = times["sweep"] / whole.size, times["loop"] / len(points)
    # A new cell for each gain compiles once and then serves all seeds.
    report(
        {
            "whole sweep at once": (of_sweep, compiling_sweep / whole.size),
            "loop, gain traced": (of_loop, of_loop + compiling_one / whole.size),
            "loop, a cell for each gain": (of_loop, of_loop + compiling_one / _NUM_SEEDS.value),
        }
    )
    picked = jnp.stack([whole[s, g] for s, g in points])
    off = jnp.where(picked < 0, jnp.abs(jnp.stack(contestants["loop"]()) - picked), 0)
    print(f"\nlargest difference of an exponent below 0: {float(jnp.max(off)):.0e}")


def report(methods: dict[str, tuple[float, float]]) -> None:
    """Prints the table of seconds per run without and with compilation, the sweep first."""
    print_head("method", "ms per run", "sweep faster by", "with compilation", "sweep faster by")
    sweep, *_ = methods.values()
    for label, taken in methods.items():
        entries = [(f"{1e3 * t:.2f}", f"{t / s:.1f} x") for t, s in zip(taken, sweep, strict=True)]
        print_row(label, *entries[0], *entries[1])


if __name__ == "__main__":
    app.run(main)
