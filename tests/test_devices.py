"""Runs and batches on several devices equal those on one.

A process has its number of devices from the start, so that each number is tried in one of its own.
"""

import os
import subprocess
import sys

import pytest
from studies import compiled_once

PROGRAM = """
import warnings
from functools import partial
import jax, jax.numpy as jnp, numpy as np
from gradflow.devices import MIN_SHARE, map_runs, place_runs, sum_over_batch, to_first_device

warnings.simplefilter("error")
devices = jax.local_devices()

def one(run):
    key, x = run
    return {"noise": jax.random.normal(key, (2,)), "largest": jnp.linalg.norm(x, 2)}

for number in (1, 2, 3, 4, 5, 7):
    runs = jax.random.split(jax.random.key(0), number), jnp.arange(4.0 * number).reshape(-1, 2, 2)
    found = jax.jit(map_runs(one, sequential=False))(runs)
    wanted = jax.vmap(one)(runs)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
    share = -(-number // len(devices))
    assert len(found["largest"].devices()) == -(-number // share), number
    in_sequence = jax.jit(map_runs(lambda key, x: one((key, x))))(*runs)
    jax.tree.map(np.testing.assert_array_equal, in_sequence, wanted)
    assert in_sequence["largest"].devices() == found["largest"].devices(), number
    nested = map_runs(lambda x: jnp.sum(map_runs(jnp.sum, sequential=False)(x)))(runs[1])
    np.testing.assert_array_equal(nested, jnp.sum(runs[1], axis=(1, 2)))
    at = place_runs(one, runs)
    np.testing.assert_array_equal(at[1], runs[1])
    for like in jax.tree.leaves(found):
        for leaf in jax.tree.leaves(at):
            assert leaf.sharding.is_equivalent_to(like.sharding, leaf.ndim), number

def solved(a):
    step = lambda a, _: (jnp.linalg.solve(a, jnp.eye(len(a))), None)
    return jax.lax.scan(step, a, length=50)[0]

# In batches, on two devices, these wait for each other for ever with jaxlib 0.10.
large = jnp.eye(256) + jax.random.normal(jax.random.key(0), (6, 256, 256)) / 160
found = jax.jit(map_runs(solved, sequential=False))(large)
assert len(found.devices()) == len(devices)
np.testing.assert_allclose(found, large, atol=1e-4)
batches = jax.jit(map_runs(jnp.linalg.inv))(large.reshape(3, 2, 256, 256))
assert len(batches.devices()) == 1, "a run has batches of its own"

traced = []

def counted(a):
    traced.append(a)
    return jnp.linalg.qr(a)[1]

jax.jit(map_runs(counted))(large)
assert len(traced) == 1, "tracing is much of the time of a small study"

seen = []

def share(params, batch):
    rows, columns = batch
    seen.append(len(rows))
    return {"sum": params * jnp.sum(rows * columns.T), "number": jnp.array(len(rows))}, -rows

size = 12 * MIN_SHARE
rows, columns = jnp.arange(4.0 * size).reshape(size, 4), jnp.ones((4, size))
shared = jax.jit(partial(sum_over_batch, share, axes=(0, 1)))
sums, opposite = shared(2.0, (rows, columns))
assert sums == {"sum": 2 * jnp.sum(rows), "number": size}
np.testing.assert_array_equal(opposite, -rows)
assert set(seen) == {size, size // len(devices)} or len(devices) == 1, seen
assert len(sums["sum"].devices()) == len(devices)
moved = to_first_device({**sums, "key": jax.device_put(jax.random.key(1), sums["sum"].sharding)})
assert all(leaf.devices() == {devices[0]} for leaf in jax.tree.leaves(moved))
assert moved["sum"] == sums["sum"]
for few in (2 * MIN_SHARE - 1, 24 * MIN_SHARE + 1):
    seen.clear()
    sums, _ = sum_over_batch(share, 2.0, (jnp.ones((few, 4)), jnp.ones((4, few))), axes=(0, 1))
    assert sums["number"] == few and set(seen) == {few}, seen

def inverted(params, matrices):
    return jnp.sum(jnp.linalg.inv(params + matrices)), ()

matrices = jnp.eye(3) + jnp.ones((2 * MIN_SHARE, 3, 3))
total, _ = jax.jit(partial(sum_over_batch, inverted, axes=0))(0.0, matrices)
assert len(total.devices()) == 1, "batches of matrices would wait for each other"
weighted = lambda x: sum_over_batch(lambda p, b: (p * b.sum(), ()), x, rows, axes=0)[0]
within = map_runs(weighted, sequential=False)
np.testing.assert_allclose(within(jnp.arange(2.0)), jnp.arange(2) * rows.sum())
"""


@pytest.mark.parametrize("num_devices", (1, 2, 3))
def test_runs_and_batches_on_several_devices_equal_those_on_one(num_devices):
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(num_devices), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment | compiled_once() | {"JAX_ENABLE_X64": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
