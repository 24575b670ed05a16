"""The time of training several seeds side by side, relative to one seed.

Whole updates on the adding problem (sampling, forward, backward, clipping of the gradient's norm,
Adam), float32: `gradflow.train.advance` on one run and on several, alternately.

    python benchmarks/seeds.py --cells=rnn,gru,lstm --seeds=5
    JAX_NUM_CPU_DEVICES=2 python benchmarks/seeds.py

The second command distributes the runs over two devices, as the studies do with one per core.
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
from absl import app, flags
from timing import medians, print_head, print_row, set_up

from gradflow.cells import resolve
from gradflow.tasks import resolve_task
from gradflow.train import Training, advance, begin, resolve_clipping, resolve_optimiser

_CELLS = flags.DEFINE_list("cells", ["rnn", "gru", "lstm"], "Cells by name.")
_SEEDS = flags.DEFINE_integer("seeds", 5, "Runs side by side.", lower_bound=2)
_HIDDEN_SIZE = flags.DEFINE_integer("hidden_size", 50, "Hidden units.", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 20, "Sequences per update.", lower_bound=1)
_NUM_STEPS = flags.DEFINE_integer("num_steps", 100, "Steps of a sequence.", lower_bound=2)
_UPDATES = flags.DEFINE_integer("updates", 50, "Updates of a timed run.", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 9, "Timed runs of each.", lower_bound=1)


def training_of(spec: str) -> Training:
    """The training of a cell on the adding problem."""
    task = resolve_task(f"adding(num_steps={_NUM_STEPS.value})")
    return Training(
        resolve(spec)(task.input_size, _HIDDEN_SIZE.value),
        task,
        resolve_optimiser("adam"),
        resolve_clipping("global_norm(threshold=1.0)"),
        batch_size=_BATCH_SIZE.value,
    )


def updates(training: Training, num_runs: int) -> Callable[[], Mapping[str, jax.Array]]:
    """Returns a function that makes the next updates of a number of runs."""
    keys = jax.random.split(jax.random.key(0), num_runs)
    runs = begin(training, keys, jnp.full(num_runs, 1e-3))

    def further() -> Mapping[str, jax.Array]:
        nonlocal runs
        runs, means = advance(training, runs, _UPDATES.value)
        return means

    return further


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    set_up(argv, x64=False)
    print_head("cell", "one seed, ms per update", f"{_SEEDS.value} seeds", "ratio")
    for spec in _CELLS.value:
        training = training_of(spec)
        contestants = {str(number): updates(training, number) for number in (1, _SEEDS.value)}
        one, several = medians(contestants, _REPEATS.value).values()
        each = (f"{1e3 * taken / _UPDATES.value:.2f}" for taken in (one, several))
        print_row(spec, *each, f"{several / one:.2f}")


if __name__ == "__main__":
    app.run(main)
