"""Many runs of one measurement."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_RUNS = "runs"


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
        mesh, share = _shares(runs)
        if mesh.size == 1:
            return jax.vmap(one_run)(runs)
        along = PartitionSpec(_RUNS)
        shared = jax.shard_map(
            jax.vmap(one_run), mesh=mesh, in_specs=along, out_specs=along, check_vma=False
        )
        padded = jnp.arange(mesh.size * share) % _length(runs)
        found = shared(jax.tree.map(lambda leaf: leaf[padded], runs))
        return jax.tree.map(lambda leaf: leaf[: _length(runs)], found)

    return all_runs


def shared_out(runs: Any) -> Any:
    """Runs where `side_by_side` leaves them, so that a program of theirs is compiled only once."""
    mesh, share = _shares(runs)
    along = PartitionSpec(_RUNS) if mesh.size * share == _length(runs) else PartitionSpec()
    return jax.device_put(runs, NamedSharding(mesh, along)) if mesh.size > 1 else runs


def _shares(runs: Any) -> tuple[Mesh, int]:
    """The devices that the runs are shared out to, and how many runs each has."""
    devices = jax.local_devices()
    share = -(-_length(runs) // len(devices))
    num_devices = -(-_length(runs) // share)
    return Mesh(np.array(devices[:num_devices]), (_RUNS,)), share


def _length(runs: Any) -> int:
    return len(jax.tree.leaves(runs)[0])
