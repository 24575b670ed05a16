"""Runs side by side on several devices, which a process has from its start: in one of its own."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import jax, jax.numpy as jnp, numpy as np
from gradflow import flow
from gradflow.cells import resolve
from gradflow.tasks import resolve_task
from gradflow.train import Training, begin, resolve_optimiser
from gradflow.train.runs import advance, evaluate, placed

def one(run):
    key, x = run
    return {"noise": jax.random.normal(key, (2,)), "largest": jnp.linalg.norm(x, 2)}

devices = jax.local_devices()
for number in (1, 2, 3, 4, 5, 7):
    runs = jax.random.split(jax.random.key(0), number), jnp.arange(4.0 * number).reshape(-1, 2, 2)
    found = jax.jit(flow.side_by_side(one))(runs)
    wanted = jax.vmap(one)(runs)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
    share = -(-number // len(devices))
    assert len(found["largest"].devices()) == -(-number // share), number
    in_turn = jax.jit(flow.over_runs(lambda key, x: one((key, x))))(*runs)
    jax.tree.map(np.testing.assert_array_equal, in_turn, wanted)
    assert in_turn["largest"].devices() == found["largest"].devices(), number
    nested = flow.over_runs(lambda x: jnp.sum(flow.side_by_side(jnp.sum)(x)))(runs[1])
    np.testing.assert_array_equal(nested, jnp.sum(runs[1], axis=(1, 2)))
    at = flow.shared_out(one, runs)
    np.testing.assert_array_equal(at[1], runs[1])
    for like in jax.tree.leaves(found):
        for leaf in jax.tree.leaves(at):
            assert leaf.sharding.is_equivalent_to(like.sharding, leaf.ndim), number

def solved(a):
    step = lambda a, _: (jnp.linalg.solve(a, jnp.eye(len(a))), None)
    return jax.lax.scan(step, a, length=50)[0]

# In batches, on two devices, these wait for each other for ever with jaxlib 0.10.
large = jnp.eye(256) + jax.random.normal(jax.random.key(0), (6, 256, 256)) / 160
found = jax.jit(flow.side_by_side(solved))(large)
assert len(found.devices()) == len(devices)
np.testing.assert_allclose(found, large, atol=1e-4)
batches = jax.jit(flow.over_runs(jnp.linalg.inv))(large.reshape(3, 2, 256, 256))
assert len(batches.devices()) == 1, "a run has batches of its own"

task = resolve_task("adding(num_steps=6)")
sizes = {"batch_size": 4, "eval_size": 8}
training = Training(resolve("gru")(2, 4), task, resolve_optimiser("adam"), **sizes)
runs = begin(training, jax.random.split(jax.random.key(1), 3), jnp.array([1e-2, 1e-3, jnp.nan]))
compiled = []
jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: compiled.append(event))
runs, known = placed(training, runs), 0
for _ in range(2):
    runs, found = evaluate(training, runs)
    runs, means = advance(training, runs, 3)
    programs = compiled.count("/jax/core/compile/backend_compile_duration")
    assert programs > 0 and known in (0, programs), (known, programs)
    known = programs
runs, found = evaluate(training, runs)
assert len(runs.update.devices()) == min(len(devices), 3)
print(*np.asarray([means["train_loss"], found["loss"], runs.died_at]).ravel().tolist())
"""


@pytest.fixture(scope="module")
def alone():
    return trained(1)


def trained(num_devices):
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(num_devices), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [float(word) for word in done.stdout.split()]


@pytest.mark.parametrize("num_devices", (2, 3))
def test_runs_on_several_devices_are_those_on_one(alone, num_devices):
    assert len(alone) == 9 and alone[6:] == [-1, -1, 1]
    assert trained(num_devices) == pytest.approx(alone, rel=1e-6, nan_ok=True)
