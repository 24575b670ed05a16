"""A batch of sequences on all devices of this process: each has an equal share of them.

A sum over sequences is the sum of its shares, and its gradient the sum of theirs::

    L(θ) = Σ_b ℓ(θ, x_b)        ∂L/∂θ = Σ_shares ∂/∂θ Σ_{b in share} ℓ(θ, x_b)

One program on two cores runs an LSTM's products and its pointwise rest on 1.3 of them (XLA waits
for each before it begins the next); two programs of half the batch run on both.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import PyTree

from gradflow.lapack import decomposed, in_batches

LEAST = 8
"""Sequences of a share; for fewer, adding up takes longer than it saves."""

_BATCH = "batch"


def over_shares(
    compute: Callable[[Any, Any], tuple[PyTree, PyTree]], params: Any, batch: Any, axes: Any = 1
) -> tuple[PyTree, PyTree]:
    """What a function of a batch gives, each device computing its share of the sequences.

    Without a second device, inside of runs that are shared out already (`gradflow.flow.runs`), and
    where LAPACK could not work on several devices, it is called on the whole batch.

    Args:
      compute: (parameters, sequences) -> (sums, rows): what is a sum over the sequences, such as a
        loss and its gradient, and what each of them has for itself, on the leading axis.
      params: What all of them share.
      batch: The sequences.
      axes: On which axis of the batch's leaves they lie; a number, or a tree of them that is the
        beginning of the batch's, as for `jax.vmap`.
    """
    mesh = _mesh(compute, params, batch, axes)
    if mesh is None:
        return compute(params, batch)

    def of_share(params: Any, batch: Any) -> tuple[PyTree, PyTree]:
        sums, rows = compute(params, batch)
        flat, restore = ravel_pytree(sums)  # one sum of all is faster than one for each array
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


def on_one(tree: PyTree) -> PyTree:
    """Arrays that every device has, on the first one alone, and free to be shared out again.

    What is done with them next is then not done by every device.
    """

    def one(leaf: Any) -> Any:
        try:
            if len(leaf.devices()) == 1:
                return leaf
        except jax.errors.ConcretizationTypeError:  # it is traced
            return leaf
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(one(jax.random.key_data(leaf)))
        return jnp.asarray(np.asarray(leaf))

    return jax.tree.map(one, tree)


def _mesh(compute: Callable, params: Any, batch: Any, axes: Any) -> Mesh | None:
    """The devices that a batch is shared out to, or None if it stays where it is."""
    sizes = jax.tree.map(
        lambda axis, part: [leaf.shape[axis] for leaf in jax.tree.leaves(part)], axes, batch
    )
    (batch_size,) = set(jax.tree.leaves(sizes))
    devices = jax.local_devices()
    most = min(batch_size // LEAST, len(devices))
    number = next((n for n in range(most, 1, -1) if batch_size % n == 0), 1)
    if number == 1 or jax.sharding.get_abstract_mesh().axis_names:
        return None
    if jax.default_backend() == "cpu" and in_batches(decomposed(compute, params, batch)):
        return None
    return Mesh(np.array(devices[:number]), (_BATCH,))
