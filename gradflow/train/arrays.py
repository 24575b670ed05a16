"""The leaves of a state as plain arrays, which a file takes, and back."""

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def to_arrays(tree: Any) -> dict[str, np.ndarray]:
    """Returns the leaves by number on the host, without empty ones, which Orbax does not take."""
    leaves = [np.asarray(_without_keys(leaf)) for leaf in jax.tree.leaves(tree)]
    return {_name(i): leaf for i, leaf in enumerate(leaves) if leaf.size}


def from_arrays(arrays: Mapping[str, np.ndarray], like: Any) -> Any:
    """Returns the tree whose leaves `to_arrays` gave.

    Args:
      arrays: The arrays by number.
      like: A tree of the structure, shapes and kinds that were given.
    """
    old = jax.tree.leaves(like)
    new = [_of_kind(leaf, arrays.get(_name(i))) for i, leaf in enumerate(old)]
    return jax.tree.unflatten(jax.tree.structure(like), new)


def on_host(tree: Any) -> Any:
    """Returns the tree with NumPy's arrays in place of JAX's, and the data of keys."""
    return jax.tree.map(
        lambda leaf: np.asarray(_without_keys(leaf)) if isinstance(leaf, jax.Array) else leaf, tree
    )


def array_digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Computes the SHA-256 of arrays with their names, types and shapes."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape} ".encode() + array.tobytes())
    return digest.hexdigest()


def _name(index: int) -> str:
    return f"{index:04d}"


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _without_keys(leaf: Any) -> Any:
    """The leaf, or of keys of `jax.random`, which no file takes, their data."""
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _of_kind(old: Any, new: np.ndarray | None) -> Any:
    """A leaf that was read, as the same kind of array or number as the one that was given."""
    if new is None:  # empty, and so not in the file
        return old
    if isinstance(old, int | float):
        return type(old)(new)
    if not isinstance(old, jax.Array):
        return new
    # A copy: an array that shared the memory of the file's could not be donated to an update.
    array = jnp.array(new)
    # Arrays on a single device stay uncommitted, so that a program may still distribute them.
    if len(old.sharding.device_set) > 1:
        array = jax.device_put(array, old.sharding)
    return jax.random.wrap_key_data(array, impl=jax.random.key_impl(old)) if _is_key(old) else array
