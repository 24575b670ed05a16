"""Computations over all local devices: independent runs of a function, and shares of one batch.

`map_runs` maps a function over runs that know nothing of each other (seeds, gains, sequences that
are measured); no device waits for another. `sum_over_batch` sums a function over the sequences of
one batch, of which each device computes an equal share.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from gradflow.numerics.lapack import decomposed_shapes, has_batches

MIN_SHARE = 8
"""Least number of sequences for one device; with fewer, the all-reduce costs more than it saves."""

_RUNS, _BATCH = "runs", "batch"


def map_runs(function: Callable[..., Any], *, sequential: bool | None = None) -> Callable[..., Any]:
    """Maps a function of one run over a leading axis of all its arguments, on all local devices.

    Each device takes an equal number of runs. Where the runs do not divide evenly, the first runs
    are repeated at the end and their results dropped. Inside a computation that is distributed
    already, the runs stay on their device. JAX refuses arrays that are committed to one device.

    Args:
      function: Computes one run.
      sequential: Whether a device executes its runs one after the other (`jax.lax.map`) or all at
        once (`jax.vmap`). By default sequentially on a CPU alone: one run fills its matrix unit,
        and an iteration that stops at convergence need not wait for the slowest run. Runs with
        matrix decompositions are sequential wherever several CPU devices share them.
    """

    def one_run(run: tuple[Any, ...]) -> Any:
        return function(*run)

    def over_runs(*runs: Any) -> Any:
        on_cpu = jax.default_backend() == "cpu"
        placement = _placement(one_run, runs)
        in_sequence = on_cpu if sequential is None else sequential
        in_sequence |= placement is not None and placement.decomposes
        mapped = (lambda runs: jax.lax.map(one_run, runs)) if in_sequence else jax.vmap(one_run)
        return mapped(runs) if placement is None else _distributed(mapped, runs, placement)

    return over_runs


def place_runs(function: Callable[[Any], Any], runs: PyTree) -> PyTree:
    """Places the runs with the sharding that `map_runs` returns, which avoids a second compilation.

    Args:
      function: Computes one run, from a single argument.
      runs: That argument, with the runs on the leading axis of each leaf.
    """
    placement = _placement(function, runs)
    if placement is None:
        return runs
    is_even = placement.mesh.size * placement.share == _length(runs)
    along = PartitionSpec(_RUNS) if is_even else PartitionSpec()
    return jax.device_put(runs, NamedSharding(placement.mesh, along))


def sum_over_batch(
    function: Callable[[Any, Any], tuple[PyTree, PyTree]], params: Any, batch: Any, *, axes: Any = 1
) -> tuple[PyTree, PyTree]:
    """Computes a function of a batch, each device on an equal share of the sequences.

    A sum over sequences is the sum of its shares, and so is its gradient::

        L(θ) = Σ_b ℓ(θ, x_b)        ∂L/∂θ = Σ_shares ∂/∂θ Σ_{b in share} ℓ(θ, x_b)

    One program on two cores keeps 1.3 of them busy with an LSTM (XLA finishes a matrix product
    before it begins the pointwise rest); two programs on half the batch each keep both busy.
    The whole batch stays on one device if there is no other, if the computation is distributed
    already (`map_runs`), or if it contains batched decompositions on a CPU, which could deadlock.

    Args:
      function: (params, batch) -> (sums, rows). ``sums`` are sums over the sequences, such as a
        loss and its gradient; ``rows`` belong to one sequence each, on the leading axis.
      params: Parameters that all sequences share.
      batch: The sequences.
      axes: The axis of the sequences in the batch's leaves: a number, or a prefix tree of numbers
        as for `jax.vmap`.
    """
    mesh = _batch_mesh(function, params, batch, axes)
    if mesh is None:
        return function(params, batch)

    def of_share(params: Any, batch: Any) -> tuple[PyTree, PyTree]:
        sums, rows = function(params, batch)
        flat, restore = ravel_pytree(sums)  # one all-reduce is faster than one for each array
        return restore(jax.lax.psum(flat, _BATCH)), rows

    along = jax.tree.map(lambda axis: PartitionSpec(*[None] * axis, _BATCH), axes)
    shared = jax.shard_map(
        of_share,
        mesh=mesh,
        in_specs=(PartitionSpec(), along),
        out_specs=(PartitionSpec(), PartitionSpec(_BATCH)),
        check_vma=False,
    )
    return shared(params, batch)


def to_first_device(tree: PyTree) -> PyTree:
    """Moves arrays that every device holds to the first one, uncommitted.

    What is computed from them next is then not repeated on every device.
    """

    def move(leaf: Any) -> Any:
        try:
            if len(leaf.devices()) == 1:
                return leaf
        except jax.errors.ConcretizationTypeError:  # a traced array has no devices yet
            return leaf
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(move(jax.random.key_data(leaf)))
        return jnp.asarray(np.asarray(leaf))

    return jax.tree.map(move, tree)


class _Placement(NamedTuple):
    """Distribution of runs over devices.

    Attributes:
      mesh: The devices.
      share: The number of runs on each.
      decomposes: Whether a run decomposes matrices on a CPU. Mapped by `jax.vmap` they would be
        batches, and several devices could deadlock.
    """

    mesh: Mesh
    share: int
    decomposes: bool


def _placement(one_run: Callable[[Any], Any], runs: Any) -> _Placement | None:
    """The distribution of the runs, or None if they stay on one device."""
    devices = jax.local_devices()
    share = -(-_length(runs) // len(devices))
    if share == _length(runs) or jax.sharding.get_abstract_mesh().axis_names:
        return None
    shapes = []
    if jax.default_backend() == "cpu":
        first = jax.eval_shape(lambda runs: jax.tree.map(lambda leaf: leaf[0], runs), runs)
        shapes = decomposed_shapes(one_run, first)
    if has_batches(shapes):
        return None
    mesh = Mesh(np.array(devices[: -(-_length(runs) // share)]), (_RUNS,))
    return _Placement(mesh, share, bool(shapes))


def _distributed(mapped: Callable[[Any], Any], runs: Any, placement: _Placement) -> Any:
    along = PartitionSpec(_RUNS)
    shared = jax.shard_map(
        mapped, mesh=placement.mesh, in_specs=along, out_specs=along, check_vma=False
    )
    padded = jnp.arange(placement.mesh.size * placement.share) % _length(runs)
    found = shared(jax.tree.map(lambda leaf: jnp.asarray(leaf)[padded], runs))
    return jax.tree.map(lambda leaf: leaf[: _length(runs)], found)


def _length(runs: Any) -> int:
    return len(jax.tree.leaves(runs)[0])


def _batch_mesh(function: Callable, params: Any, batch: Any, axes: Any) -> Mesh | None:
    """The devices that share the batch, or None if it stays on one device."""
    sizes = jax.tree.map(
        lambda axis, part: [leaf.shape[axis] for leaf in jax.tree.leaves(part)], axes, batch
    )
    (batch_size,) = set(jax.tree.leaves(sizes))
    devices = jax.local_devices()
    most = min(batch_size // MIN_SHARE, len(devices))
    number = next((n for n in range(most, 1, -1) if batch_size % n == 0), 1)
    if number == 1 or jax.sharding.get_abstract_mesh().axis_names:
        return None
    if jax.default_backend() == "cpu" and has_batches(decomposed_shapes(function, params, batch)):
        return None
    return Mesh(np.array(devices[:number]), (_BATCH,))
