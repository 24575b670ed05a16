"""Comparison of two gradients: the angle between them and the ratio of their norms."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Params


class Comparison(NamedTuple):
    """A gradient compared with a reference, each as one vector.

    Attributes:
      cosine: The cosine of the angle between them; 1 if both are zero, 0 if only one is.
      norm_ratio: The norm over that of the reference.
    """

    cosine: Float[Array, ""]
    norm_ratio: Float[Array, ""]


def compare(gradient: Params, reference: Params) -> Comparison:
    """Computes the cosine and the ratio of norms of two gradients of the same parameters."""
    size, whole = norm(gradient), norm(reference)
    # Each is divided by its norm first: products of small entries would underflow.
    scaled = jax.tree.map(lambda g: g / _or_one(size), gradient)
    products = jax.tree.map(lambda g, r: jnp.sum(g * (r / _or_one(whole))), scaled, reference)
    cosine = jnp.where((size == 0) & (whole == 0), 1, sum(jax.tree.leaves(products)))
    return Comparison(cosine, jnp.where(size == whole, 1, size / whole))


def norm(tree: Params) -> Float[Array, ""]:
    """Computes the Euclidean norm of all leaves as one vector, without over- or underflow."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if leaf.size]
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in leaves]))
    scale = jax.lax.stop_gradient(jnp.where(jnp.isfinite(largest), _or_one(largest), 1))
    squares = jnp.stack([jnp.sum(jnp.square(leaf / scale)) for leaf in leaves])
    return scale * jnp.sqrt(jnp.sum(squares))


def _or_one(value: Array) -> Array:
    return jnp.where(value == 0, 1, value)
