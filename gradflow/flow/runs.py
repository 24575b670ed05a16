"""Many runs of one measurement or of one training, on all devices of this process."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_RUNS = "runs"


def over_runs(measure: Callable[..., Any]) -> Callable[..., Any]:
    """A measurement of one run, mapped over a leading axis of all its arguments.

    The runs are shared out as by `side_by_side`, and mapped by `jax.vmap` on an accelerator. On a
    CPU a device takes one run after the other: the matrix unit is full with one of them, and
    what a run does until it converges does not wait for the slowest of all.
    """

    def one_run(run: tuple[Any, ...]) -> Any:
        return measure(*run)

    in_turn = jax.default_backend() == "cpu"
    share = partial(jax.lax.map, one_run) if in_turn else jax.vmap(one_run)
    return lambda *arguments: _on_all_devices(share, arguments)


def side_by_side(one_run: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function of one run, over a leading axis of its argument: vmapped, on all local devices.

    Each device takes an equal share of the runs; where they do not divide, the last of a share
    repeat the first of all, and are left out. No device waits for another on the way. Inside of
    runs that are shared out already, the runs of each stay on its device.
    """
    return partial(_on_all_devices, jax.vmap(one_run))


def _on_all_devices(of_share: Callable[[Any], Any], runs: Any) -> Any:
    mesh, share = _shares(runs)
    if mesh.size == 1 or _RUNS in jax.sharding.get_abstract_mesh().axis_names:
        return of_share(runs)
    along = PartitionSpec(_RUNS)
    shared = jax.shard_map(of_share, mesh=mesh, in_specs=along, out_specs=along, check_vma=False)
    padded = jnp.arange(mesh.size * share) % _length(runs)
    found = shared(jax.tree.map(lambda leaf: jnp.asarray(leaf)[padded], runs))
    return jax.tree.map(lambda leaf: leaf[: _length(runs)], found)


def shared_out(runs: Any) -> Any:
    """Runs where `side_by_side` leaves them, so that a program of theirs is compiled only once."""
    mesh, share = _shares(runs)
    along = PartitionSpec(_RUNS) if mesh.size * share == _length(runs) else PartitionSpec()
    return jax.device_put(runs, NamedSharding(mesh, along)) if mesh.size > 1 else runs


def _shares(runs: Any) -> tuple[Mesh, int]:
    """The devices that the runs are shared out to, and how many runs each has."""
    devices = jax.local_devices()
    share = max(1, -(-_length(runs) // len(devices)))
    num_devices = max(1, -(-_length(runs) // share))
    return Mesh(np.array(devices[:num_devices]), (_RUNS,)), share


def _length(runs: Any) -> int:
    return len(jax.tree.leaves(runs)[0])
