"""Many runs of one measurement or of one training, on all devices of this process.

Batches for LAPACK, one on each device, may wait for each other for ever (see `gradflow.lapack`).
So runs that decompose matrices are taken in turn, a matrix at a time, and those with batches of
their own stay on one device.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gradflow.lapack import decomposed, in_batches

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
    return lambda *arguments: _on_all_devices(one_run, arguments, in_turn=in_turn)


def side_by_side(one_run: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function of one run, over a leading axis of its argument: vmapped, on all local devices.

    Each device takes an equal share of the runs; where they do not divide, the last of a share
    repeat the first of all, and are left out. No device waits for another on the way. Inside of
    runs that are shared out already, the runs of each stay on its device. Arrays that are
    committed to one device, JAX refuses to share out.
    """
    return partial(_on_all_devices, one_run, in_turn=False)


def _on_all_devices(one_run: Callable[[Any], Any], runs: Any, *, in_turn: bool) -> Any:
    is_shared = _RUNS in jax.sharding.get_abstract_mesh().axis_names
    sharing = None if is_shared else _sharing(one_run, runs)
    in_turn = in_turn or (sharing is not None and sharing.decomposes)
    of_share = partial(jax.lax.map, one_run) if in_turn else jax.vmap(one_run)
    if sharing is None:
        return of_share(runs)
    along = PartitionSpec(_RUNS)
    shared = jax.shard_map(
        of_share, mesh=sharing.mesh, in_specs=along, out_specs=along, check_vma=False
    )
    padded = jnp.arange(sharing.mesh.size * sharing.share) % _length(runs)
    found = shared(jax.tree.map(lambda leaf: jnp.asarray(leaf)[padded], runs))
    return jax.tree.map(lambda leaf: leaf[: _length(runs)], found)


def shared_out(one_run: Callable[[Any], Any], runs: Any) -> Any:
    """Runs where `side_by_side` leaves them, so that a program of theirs is compiled only once."""
    sharing = _sharing(one_run, runs)
    if sharing is None:
        return runs
    is_whole = sharing.mesh.size * sharing.share == _length(runs)
    along = PartitionSpec(_RUNS) if is_whole else PartitionSpec()
    return jax.device_put(runs, NamedSharding(sharing.mesh, along))


class _Sharing(NamedTuple):
    """Attributes:
    mesh: The devices that the runs are shared out to.
    share: How many runs each of them has.
    decomposes: Whether LAPACK has a matrix to decompose in a run.
    """

    mesh: Mesh
    share: int
    decomposes: bool


def _sharing(one_run: Callable[[Any], Any], runs: Any) -> _Sharing | None:
    """How the runs are shared out, or None if they stay on one device."""
    devices = jax.local_devices()
    share = -(-_length(runs) // len(devices))
    if share == _length(runs):
        return None
    shapes = []
    if jax.default_backend() == "cpu":
        first = jax.eval_shape(lambda runs: jax.tree.map(lambda leaf: leaf[0], runs), runs)
        shapes = decomposed(one_run, first)
    if in_batches(shapes):
        return None
    mesh = Mesh(np.array(devices[: -(-_length(runs) // share)]), (_RUNS,))
    return _Sharing(mesh, share, bool(shapes))


def _length(runs: Any) -> int:
    return len(jax.tree.leaves(runs)[0])
