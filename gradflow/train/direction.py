"""How one gradient stands to another: the angle between them and the ratio of their sizes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Params


class Comparison(NamedTuple):
    """A gradient beside a reference, each taken as one vector.

    Attributes:
      cosine: Of the angle between them; 1 where they are equal, be they zero, and 0 where one
        alone is zero.
      norm_ratio: Its norm over that of the reference.
    """

    cosine: Float[Array, ""]
    norm_ratio: Float[Array, ""]


def compare(gradient: Params, reference: Params) -> Comparison:
    """The cosine and the ratio of norms of two gradients of the same parameters."""
    size, whole = norm(gradient), norm(reference)
    scaled = jax.tree.map(lambda g: g / _or_one(size), gradient)
    products = jax.tree.map(lambda g, r: jnp.sum(g * (r / _or_one(whole))), scaled, reference)
    cosine = jnp.where((size == 0) & (whole == 0), 1, sum(jax.tree.leaves(products)))
    return Comparison(cosine, jnp.where(size == whole, 1, size / whole))


def norm(tree: Params) -> Float[Array, ""]:
    """The Euclidean norm of all leaves as one vector, of which no square over- or underflows."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if leaf.size]
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in leaves]))
    scale = jax.lax.stop_gradient(jnp.where(jnp.isfinite(largest), _or_one(largest), 1))
    squares = jnp.stack([jnp.sum(jnp.square(leaf / scale)) for leaf in leaves])
    return scale * jnp.sqrt(jnp.sum(squares))


def _or_one(value: Array) -> Array:
    return jnp.where(value == 0, 1, value)
