"""Training on several devices equals training on one, whether they share the runs or the batch.

A process has its number of devices from the start, so that each number is tried in one of its own.
"""

import os
import subprocess
import sys

import pytest
from studies import FOLDER, compiled_once

pytestmark = pytest.mark.slow  # two processes compile every kind of training

PROGRAM = """
import warnings
from dataclasses import replace
from functools import partial
import jax, jax.numpy as jnp, numpy as np
from gradflow.cells import resolve
from gradflow.devices import MIN_SHARE
from gradflow.tasks import resolve_task
from gradflow.train import Training, begin, resolve_optimiser
from gradflow.train import resolve_regulariser
from gradflow.train.clipping import resolve_clipping
from char_lm import language
from gradflow.train.runs import advance, evaluate, placed
from gradflow.train.training import gradient

warnings.simplefilter("error")
devices = jax.local_devices()
compiled, printed = [], []
jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: compiled.append(event))
programs = lambda: compiled.count("/jax/core/compile/backend_compile_duration")  # noqa: E731
task = resolve_task("adding(num_steps=6)")

# Several runs: each device has its own.
sizes = {"batch_size": 4, "eval_size": 8}
training = Training(resolve("gru")(2, 4), task, resolve_optimiser("adam"), **sizes)
runs = begin(training, jax.random.split(jax.random.key(1), 3), jnp.array([1e-2, 1e-3, jnp.nan]))
runs, known = placed(training, runs), 0
for _ in range(2):
    runs, found = evaluate(training, runs)
    runs, means = advance(training, runs, 3)
    assert programs() > 0 and known in (0, programs()), (known, programs())
    known = programs()
runs, found = evaluate(training, runs)
assert len(runs.update.devices()) == min(len(devices), 3)
printed += [*means["train_loss"], *found["loss"], *runs.died_at]

# A single run: the devices share its batch.
for truncation in (None, (2, 4)):
    sizes = {"batch_size": 2 * MIN_SHARE, "eval_size": 8, "truncation": truncation}
    training = Training(resolve("gru")(2, 4), task, resolve_optimiser("adam"), **sizes)
    runs = begin(training, jax.random.split(jax.random.key(1), 1), jnp.array([1e-2]))
    runs, means = advance(training, runs, 3)
    known = programs()
    runs, means = advance(training, runs, 3)
    assert programs() == known, "compiled twice"
    assert all(len(leaf.devices()) == 1 for leaf in jax.tree.leaves(runs))
    printed += [means["train_loss"][0], means["grad_norm"][0], runs.params["cell"]["r"]["b"][0, 1]]

regular = replace(training, regulariser=resolve_regulariser("flossing"), truncation=None)
for one, number in ((replace(training, truncation=None), min(len(devices), 2)), (regular, 1)):
    batch = task.sample(jax.random.key(3), 2 * MIN_SHARE)
    params = jax.tree.map(lambda leaf: leaf[0], runs.params)
    found = jax.jit(partial(gradient, one))(params, batch)
    assert len(found.loss.devices()) == number, "a regulariser is of the whole batch"

# A language model: the devices share its streams.
model = language.Language(
    resolve("lstm")(5, 4), 5, resolve_optimiser("adam"), resolve_clipping("none"), 3, 10
)
codes = jnp.asarray(np.random.default_rng(0).integers(5, size=(8, 2 * MIN_SHARE)))
state = language.initial_state(model, jax.random.key(2), 2 * MIN_SHARE, 1e-3)
state, losses = language.advance(model, state, codes, 3)
known = programs()
state, losses = language.advance(model, state, codes, 3)
assert programs() == known, "compiled twice"
assert all(len(leaf.devices()) == 1 for leaf in jax.tree.leaves(state))
printed += [*losses, state.carry.c[-1, 0], state.carry.h[0, 1]]
print(*np.asarray(printed, float).tolist())
"""


@pytest.fixture(scope="module")
def alone():
    return trained(1)


def trained(num_devices):
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(num_devices), "JAX_PLATFORMS": "cpu"}
    path = os.pathsep.join([str(FOLDER), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment | compiled_once() | {"JAX_ENABLE_X64": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [float(word) for word in done.stdout.split()]


@pytest.mark.parametrize("num_devices", (2, 3))
def test_training_on_several_devices_equals_training_on_one(alone, num_devices):
    assert len(alone) == 20 and alone[6:9] == [-1, -1, 1]
    assert 0 not in alone[9:]
    assert trained(num_devices) == pytest.approx(alone, rel=1e-9, nan_ok=True)
