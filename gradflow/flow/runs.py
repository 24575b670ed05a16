"""Many runs of one measurement."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec


def over_runs(measure: Callable[..., Any]) -> Callable[..., Any]:
    """A measurement of one run, mapped over a leading axis of all its arguments.

    `jax.vmap` on an accelerator. On the CPU one run after the other: the matrix unit is full with
    one of them, and what a run does until it converges does not wait for the slowest of all.
    """
    if jax.default_backend() != "cpu":
        return jax.vmap(measure)
    return lambda *arguments: jax.lax.map(lambda run: measure(*run), arguments)


def side_by_side(one_run: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function of one run, over a leading axis of its argument: vmapped, on all local devices.

    Each device takes an equal share of the runs; where they do not divide, the last of a share
    repeat the first of all, and are left out. No device waits for another on the way.
    """

    def all_runs(runs: Any) -> Any:
        devices = jax.local_devices()
        num_runs = len(jax.tree.leaves(runs)[0])
        share = -(-num_runs // len(devices))
        num_devices = -(-num_runs // share)
        if num_devices == 1:
            return jax.vmap(one_run)(runs)
        mesh, along = Mesh(np.array(devices[:num_devices]), ("runs",)), PartitionSpec("runs")
        shared = jax.shard_map(
            jax.vmap(one_run), mesh=mesh, in_specs=along, out_specs=along, check_vma=False
        )
        padded = jnp.arange(num_devices * share) % num_runs
        found = shared(jax.tree.map(lambda leaf: leaf[padded], runs))
        return jax.tree.map(lambda leaf: leaf[:num_runs], found)

    return all_runs


def jit_to_run_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.jit` for what runs once or a few times: half the time to compile.

    On the CPU, LLVM optimises at level 1 in place of 3. The products are a library's either way.
    """
    if jax.default_backend() != "cpu":
        return jax.jit(function)
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 1})
