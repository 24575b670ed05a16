"""Computations over all devices: independent runs of a function, and shares of one batch.

`map_runs` maps a function over runs that know nothing of each other (seeds, gains, sequences that
are measured); no device waits for another. `sum_over_batch` sums a function over the sequences of
one batch, of which each device computes an equal share.

The devices are those of all processes (`jax.distributed`). Every process then calls these functions
with the same values, and gets the whole result: a copy of it is on every device.
"""

from collections.abc import Callable
from functools import partial
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
    """Maps a function of one run over a leading axis of all its arguments, on all devices.

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
        in_sequence = jax.default_backend() == "cpu" if sequential is None else sequential
        placement = _placement(one_run, runs, in_sequence)
        if placement is None:
            return _mapped(one_run, in_sequence)(runs)
        return _first(_length(runs), placement.program(_padded(runs, placement.mesh)))

    return over_runs


def place_runs(function: Callable[[Any], Any], runs: PyTree) -> PyTree:
    """Places the runs with the sharding that `map_runs` returns, which avoids a second compilation.

    Args:
      function: Computes one run, from a single argument.
      runs: That argument, with the runs on the leading axis of each leaf.
    """
    placement = _placement(function, runs, in_sequence=True)
    if placement is None:
        return runs
    if jax.process_count() > 1:  # where device_put takes no keys
        return jax.jit(partial(_on_every_process, mesh=placement.mesh))(runs)
    is_even = _length(runs) % placement.mesh.size == 0
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
    return _on_every_process(shared(params, batch), mesh)


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
      program: Maps the function over the runs, of which each device has an equal number.
    """

    mesh: Mesh
    program: Callable[[Any], Any]


def _placement(one_run: Callable[[Any], Any], runs: Any, in_sequence: bool) -> _Placement | None:
    """The distribution of the runs, or None if they stay on one device."""
    devices = jax.devices()
    share = -(-_length(runs) // len(devices))
    if share == _length(runs) or jax.sharding.get_abstract_mesh().axis_names:
        return None
    if jax.process_count() == 1:  # else the mesh must have devices of every process
        devices = devices[: -(-_length(runs) // share)]
    mesh = Mesh(np.array(devices), (_RUNS,))
    program = _distributed(one_run, mesh, in_sequence)
    if jax.default_backend() == "cpu":
        # The program is traced here as it is when it runs, so that JAX does not trace it again.
        padded = jax.eval_shape(lambda runs: _padded(runs, mesh), runs)
        shapes = decomposed_shapes(program.trace(padded).jaxpr)
        if shapes and not in_sequence:  # of several runs at once: batches, which could deadlock
            return _placement(one_run, runs, in_sequence=True)
        if has_batches(shapes):
            return None
    return _Placement(mesh, program)


def _distributed(one_run: Callable[[Any], Any], mesh: Mesh, in_sequence: bool) -> Any:
    along = PartitionSpec(_RUNS)
    mapped = _mapped(one_run, in_sequence)
    shared = jax.shard_map(mapped, mesh=mesh, in_specs=along, out_specs=along, check_vma=False)
    return jax.jit(lambda runs: _on_every_process(shared(runs), mesh))


def _on_every_process(tree: PyTree, mesh: Mesh) -> PyTree:
    """Copies a result to all devices, so that each of several processes can read all of it."""
    if jax.process_count() == 1:
        return tree
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, PartitionSpec()))


def _mapped(one_run: Callable[[Any], Any], in_sequence: bool) -> Callable[[Any], Any]:
    return (lambda runs: jax.lax.map(one_run, runs)) if in_sequence else jax.vmap(one_run)


def _padded(runs: Any, mesh: Mesh) -> Any:
    """The runs, of which the first are repeated until every device has as many as the others."""
    share = -(-_length(runs) // mesh.size)
    padded = jnp.arange(mesh.size * share) % _length(runs)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[padded], runs)


def _first(number: int, runs: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[:number], runs)


def _length(runs: Any) -> int:
    return len(jax.tree.leaves(runs)[0])


def _batch_mesh(function: Callable, params: Any, batch: Any, axes: Any) -> Mesh | None:
    """The devices that share the batch, or None if it stays on one device."""
    sizes = jax.tree.map(
        lambda axis, part: [leaf.shape[axis] for leaf in jax.tree.leaves(part)], axes, batch
    )
    (batch_size,) = set(jax.tree.leaves(sizes))
    processes, devices = jax.process_count(), jax.devices()
    # As many devices of each process: one that had none could not take part.
    most = min(batch_size // MIN_SHARE, len(devices)) // processes
    number = next((n for n in range(most, 0, -1) if batch_size % (n * processes) == 0), 0)
    if number * processes < 2 or jax.sharding.get_abstract_mesh().axis_names:
        return None
    if jax.default_backend() == "cpu" and has_batches(
        decomposed_shapes(jax.make_jaxpr(function)(params, batch).jaxpr)
    ):
        return None
    return Mesh(np.array(devices).reshape(processes, -1)[:, :number].ravel(), (_BATCH,))
