"""A batch on several devices, which a process has from its start: in one of its own."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import warnings
from dataclasses import replace
from functools import partial
import jax, jax.numpy as jnp, numpy as np
from gradflow import flow
from gradflow.cells import resolve
from gradflow.tasks import resolve_task
from gradflow.train import Training, advance, begin, over_shares, resolve_optimiser
from gradflow.train import resolve_regulariser
from gradflow.train.training import gradient
from gradflow.train import language
from gradflow.train.clipping import resolve_clipping
from gradflow.train.sharing import LEAST

warnings.simplefilter("error")
devices = jax.local_devices()
seen = []

def share(params, batch):
    rows, columns = batch
    seen.append(len(rows))
    return {"sum": params * jnp.sum(rows * columns.T), "number": jnp.array(len(rows))}, -rows

size = 12 * LEAST
rows, columns = jnp.arange(4.0 * size).reshape(size, 4), jnp.ones((4, size))
shared = jax.jit(partial(over_shares, share, axes=(0, 1)))
sums, opposite = shared(2.0, (rows, columns))
assert sums == {"sum": 2 * jnp.sum(rows), "number": size}
np.testing.assert_array_equal(opposite, -rows)
assert set(seen) == {size, size // len(devices)} or len(devices) == 1, seen
assert len(sums["sum"].devices()) == len(devices)
for few in (2 * LEAST - 1, 24 * LEAST + 1):
    seen.clear()
    sums, _ = over_shares(share, 2.0, (jnp.ones((few, 4)), jnp.ones((4, few))), (0, 1))
    assert sums["number"] == few and set(seen) == {few}, seen

def solved(params, matrices):
    return jnp.sum(jnp.linalg.inv(params + matrices)), ()

matrices = jnp.eye(3) + jnp.ones((2 * LEAST, 3, 3))
total, _ = jax.jit(partial(over_shares, solved, axes=0))(0.0, matrices)
assert len(total.devices()) == 1, "batches of matrices would wait for each other"
within = flow.side_by_side(lambda x: over_shares(lambda p, b: (p * b.sum(), ()), x, rows, 0)[0])
np.testing.assert_allclose(within(jnp.arange(2.0)), jnp.arange(2) * rows.sum())

compiled = []
jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: compiled.append(event))
programs = lambda: compiled.count("/jax/core/compile/backend_compile_duration")  # noqa: E731
printed = []

task = resolve_task("adding(num_steps=6)")
for truncation in (None, (2, 4)):
    sizes = {"batch_size": 2 * LEAST, "eval_size": 8, "truncation": truncation}
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
    batch = task.sample(jax.random.key(3), 2 * LEAST)
    params = jax.tree.map(lambda leaf: leaf[0], runs.params)
    found = jax.jit(partial(gradient, one))(params, batch)
    assert len(found.loss.devices()) == number, "a regulariser is of the whole batch"

model = language.Language(
    resolve("lstm")(5, 4), 5, resolve_optimiser("adam"), resolve_clipping("none"), 3, 10
)
codes = jnp.asarray(np.random.default_rng(0).integers(5, size=(8, 2 * LEAST)))
state = language.begin(model, jax.random.key(2), 2 * LEAST)
state, losses = language.advance(model, state, codes, 3)
known = programs()
state, losses = language.advance(model, state, codes, 3)
assert programs() == known, "compiled twice"
assert all(len(leaf.devices()) == 1 for leaf in jax.tree.leaves(state))
printed += [*losses, state.carry.c[-1, 0], state.carry.h[0, 1]]
print(*np.asarray(printed).tolist())
"""


def trained(num_devices):
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(num_devices), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment | {"JAX_ENABLE_X64": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [float(word) for word in done.stdout.split()]


def test_a_batch_on_several_devices_is_that_on_one():
    alone = trained(1)
    assert len(alone) == 11 and 0 not in alone
    assert trained(2) == pytest.approx(alone, rel=1e-9)
    assert trained(3) == pytest.approx(alone, rel=1e-9)
