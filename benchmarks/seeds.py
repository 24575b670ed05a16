"""What several seeds trained side by side cost, in times of one seed.

Whole updates of the adding problem (sequences drawn, forward, backward, clipping of the gradient's
norm, Adam), float32: `gradflow.train.advance` on one run and on several, in turns, compilation not
counted. A row of a Markdown table for each cell.

    python benchmarks/seeds.py --cells=rnn,gru,lstm --seeds=5
    JAX_NUM_CPU_DEVICES=2 python benchmarks/seeds.py

The second has two devices, as the studies have one for each core; runs are shared out to them.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from absl import app, flags
from turns import medians

from gradflow.cells import resolve
from gradflow.tasks import resolve_task
from gradflow.train import Training, begin, resolve_optimiser
from gradflow.train.clipping import resolve_clipping
from gradflow.train.runs import Means, advance

CELLS = flags.DEFINE_list("cells", ["rnn", "gru", "lstm"], "Cells.")
SEEDS = flags.DEFINE_integer("seeds", 5, "Runs side by side.", lower_bound=2)
HIDDEN_SIZE = flags.DEFINE_integer("hidden_size", 50, "Hidden units.", lower_bound=1)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 20, "Sequences an update.", lower_bound=1)
NUM_STEPS = flags.DEFINE_integer("num_steps", 100, "Steps of a sequence.", lower_bound=2)
UPDATES = flags.DEFINE_integer("updates", 50, "Updates in a timing.", lower_bound=1)
REPEATS = flags.DEFINE_integer("repeats", 9, "Timings of each, of which the median counts.")


def updates(training: Training, num_runs: int) -> Callable[[], Means]:
    """A call that makes the next updates of so many runs."""
    keys = jax.random.split(jax.random.key(0), num_runs)
    runs = begin(training, keys, jnp.full(num_runs, 1e-3))

    def further() -> Means:
        nonlocal runs
        runs, means = advance(training, runs, UPDATES.value)
        return means

    return further


def main(argv: Sequence[str]) -> None:
    del argv
    task = resolve_task(f"adding(num_steps={NUM_STEPS.value})")
    made = partial(
        Training,
        task=task,
        optimiser=resolve_optimiser("adam"),
        clipping=resolve_clipping("global_norm(threshold=1.0)"),
        batch_size=BATCH_SIZE.value,
    )
    print(
        f"| cell | one seed, ms an update | {SEEDS.value} seeds | times |",
        "|---|---|---|---|",
        sep="\n",
    )
    for spec in CELLS.value:
        training = made(resolve(spec)(task.input_size, HIDDEN_SIZE.value))
        contestants = {str(number): updates(training, number) for number in (1, SEEDS.value)}
        one, several = medians(contestants, REPEATS.value).values()
        each = (f"{1e3 * taken / UPDATES.value:.2f}" for taken in (one, several))
        print(f"| {spec} | {' | '.join(each)} | {several / one:.2f} |", flush=True)


if __name__ == "__main__":
    app.run(main)
