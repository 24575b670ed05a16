"""A tiny task, and a script that trains a tiny net on it in a folder, to be killed."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp

from gradflow.cells import rnn
from gradflow.tasks.task import Batch, Task
from gradflow.train.driver import Progress, Schedule, fit
from gradflow.train.fresh import fresh_sequences
from gradflow.train.optimisers import resolve_optimiser
from gradflow.train.runs import Runs, begin
from gradflow.train.training import Training


def echo(num_steps: int = 5, *, success: float = 0.9) -> Task:
    """Say the first input at the last step."""

    def sample(key, batch_size: int) -> Batch:
        inputs = jax.random.uniform(key, (num_steps, batch_size, 1))
        targets = jnp.broadcast_to(inputs[:1], inputs.shape)
        weights = jnp.zeros((num_steps, batch_size)).at[-1].set(1)
        return Batch(inputs, targets, weights)

    def correct(predictions, batch: Batch):
        return jnp.abs(predictions - batch.targets)[-1, :, 0] < 0.2

    return Task(sample, 1, 1, num_steps, "squared", 1 / 12, correct, success)


TRAINING = Training(
    rnn(1, 4), echo(success=2.0), resolve_optimiser("adam"), batch_size=8, eval_size=16
)
SCHEDULE = Schedule(num_updates=80, eval_every=2)
LINES = 41
IDENTITY = {"hidden_size": 4, "seed": 0}


def runs() -> Runs:
    """Three runs, of which one dies."""
    return begin(TRAINING, jax.random.split(jax.random.key(0), 3), jnp.array([0.01, 0.1, 1e300]))


def train(folder: Path) -> Progress:
    source = fresh_sequences(TRAINING, runs())
    *_, last = fit(source, SCHEDULE, folder=folder, identity=IDENTITY)
    return last


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    train(Path(sys.argv[1]))
