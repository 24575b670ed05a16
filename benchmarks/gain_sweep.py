"""The gain sweep of experiments/exploding, against a Python loop over jitted single runs.

The largest Lyapunov exponent for every gain and seed. Two loops: one over a program in which the
gain is a number that is traced, which compiles once, and one over cells that are built anew for
each gain, as `resolve("rnn(recurrent_init='normal(gain=1.2)')")` builds them, each of which
compiles. All compute the same: one tangent vector, made a unit vector at every step. The loops are
timed on some of the runs only, for one run is as long as another. Rows of a Markdown table:
milliseconds a run, compilation not counted and counted, and how many times faster the sweep is.

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
from turns import medians

from gradflow import Cell, Params
from gradflow.cells import resolve
from gradflow.flow.lyapunov import lyapunov_exponents

CELL = flags.DEFINE_string("cell", "tanh", "Of linear, relu, tanh, lstm and gru.")
NUM_GAINS = flags.DEFINE_integer("num_gains", 40, "Gains of the sweep.")
NUM_SEEDS = flags.DEFINE_integer("num_seeds", 10, "Nets at each gain.")
HIDDEN_SIZE = flags.DEFINE_integer("hidden_size", 100, "Hidden units.")
NUM_STEPS = flags.DEFINE_integer("num_steps", 200, "Steps of a run.")
LOOP_RUNS = flags.DEFINE_integer("loop_runs", 40, "Runs of the loop that are timed.")
REPEATS = flags.DEFINE_integer("repeats", 5, "Timings of each, of which the median counts.")

BURN_IN = 50


def looped(cell: Cell) -> Callable[[Params, Array, Array], Array]:
    """A jitted single run of a net whose W_h is multiplied by the gain."""

    def larger(params: Params, gain: Array) -> Params:
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: gain * leaf if path[-1].key == "W_h" else leaf, params
        )

    @jax.jit
    def one(params: Params, x: Array, gain: Array) -> Array:
        params = larger(params, gain)
        found = lyapunov_exponents(cell, params, x, num_exponents=1, burn_in=BURN_IN, qr_every=1)
        return found.exponents[0]

    return one


def seconds(run: Callable[[], object]) -> float:
    """The wall time of one call, in which whatever is new is compiled."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def main(argv: Sequence[str]) -> None:
    del argv
    sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))
    networks, measuring = map(
        importlib.import_module, ("exploding.networks", "exploding.measuring")
    )
    build = resolve(networks.NETS[CELL.value].spec)
    cell = build(16, HIDDEN_SIZE.value)
    params = jax.vmap(cell.init)(jax.random.split(jax.random.key(0), NUM_SEEDS.value))
    shape = NUM_SEEDS.value, NUM_STEPS.value, 16
    inputs = 0.1 * jax.random.normal(jax.random.key(1), shape)
    gains = jnp.linspace(0.2, 3.0, NUM_GAINS.value)
    scaled = networks.scaled(CELL.value, 16, HIDDEN_SIZE.value)
    sweep = jax.jit(lambda p, x: measuring.exponents_by_gain(scaled, gains, p, x, BURN_IN))
    points = [(seed, gain) for seed in range(NUM_SEEDS.value) for gain in range(NUM_GAINS.value)]
    points = points[:: max(1, len(points) // LOOP_RUNS.value)]
    runs = [(jax.tree.map(lambda a, s=s: a[s], params), inputs[s], gains[g]) for s, g in points]
    one = looped(cell)
    contestants = {
        "sweep": lambda: sweep(params, inputs),
        "loop": lambda: [one(*run) for run in runs],
    }
    first = {
        "sweep": seconds(contestants["sweep"]),
        "anew": seconds(lambda: looped(build(16, HIDDEN_SIZE.value))(*runs[0])),
    }
    times = medians(contestants, REPEATS.value)
    whole = sweep(params, inputs)
    picked = jnp.stack([whole[s, g] for s, g in points])
    off = jnp.where(picked < 0, jnp.abs(jnp.stack(contestants["loop"]()) - picked), 0)
    per_run = {"sweep": times["sweep"] / whole.size, "loop": times["loop"] / len(points)}
    # A cell for each gain compiles once and then serves all the seeds.
    counted = {
        "sweep": first["sweep"] / whole.size,
        "loop": per_run["loop"] + first["anew"] / whole.size,
        "anew": per_run["loop"] + first["anew"] / NUM_SEEDS.value,
    }
    report(per_run, counted)
    print(f"\nlargest difference of an exponent below 0: {float(jnp.max(off)):.0e}")


def report(per_run: dict[str, float], counted: dict[str, float]) -> None:
    print("| method | ms a run | sweep faster by | with compilation | sweep faster by |")
    print("| --- | --- | --- | --- | --- |")
    names = {
        "sweep": "whole sweep at once",
        "loop": "loop, gain traced",
        "anew": "loop, a cell for each gain",
    }
    for name, label in names.items():
        plain = per_run.get(name, per_run["loop"])
        print(
            f"| {label} | {1e3 * plain:.2f} | {plain / per_run['sweep']:.1f} x "
            f"| {1e3 * counted[name]:.2f} | {counted[name] / counted['sweep']:.1f} x |"
        )


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    app.run(main)
