"""Leaving out the rows of a long product that rounding has already lost.

A product of many Jacobians is numerically of low rank: its singular values part exponentially
with the lag. With Q an orthonormal basis of its columns, M = Q (Qᵀ M) to rounding, and as
norms do not see an orthonormal factor on the left, the few rows of Qᵀ M can go on in place of M.

What is left out is as small as the rounding error, but nothing says that it stays so: a later
step can cut what was large and keep what was small. So a few random combinations of the rows
left out go on as well, each with an exponent of its own, and tell how large it has become.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gradflow.flow.steps import Rows, rescale
from gradflow.lapack import qr

PROBES = 4
"""Random combinations of the rows left out that are followed."""


class Lost(NamedTuple):
    """What was left out: 2^exponent · rows are random combinations of its rows."""

    rows: Rows
    exponent: Int[Array, ""]


def nothing_lost(rows: Rows) -> Lost:
    """The start: no row has been left out."""
    zeros = jax.tree.map(lambda leaf: jnp.zeros_like(leaf, shape=(PROBES, *leaf.shape[1:])), rows)
    return Lost(zeros, jnp.zeros((), jnp.int32))


def column_basis(rows: Rows, width: int) -> Float[Array, "rows width"]:
    """An orthonormal basis that holds the columns of ``rows``, if their rank is at most width.

    Each leaf of the carry counts alike, however small. Source: Halko, Martinsson, Tropp 2011,
    doi:10.1137/090771806, algorithm 4.1.
    """
    leaves = jax.tree.leaves(rows)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    sketches = [_sketch(leaf, key, width) for leaf, key in zip(leaves, keys, strict=True)]
    return qr(jnp.sum(jnp.stack(sketches), axis=0))[0]


def fits(rows: Rows, basis: Float[Array, "rows width"], tolerance: float) -> Bool[Array, ""]:
    """Whether the basis holds every leaf's columns to the tolerance, relative to that leaf."""

    def leaf_fits(leaf: Array, key: Array) -> Bool[Array, ""]:
        probe = _sketch(leaf, key, PROBES)
        missed = probe - basis @ (basis.T @ probe)
        return jnp.linalg.norm(missed) <= tolerance * jnp.linalg.norm(probe)

    leaves = jax.tree.leaves(rows)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    return jnp.all(jnp.stack([leaf_fits(*pair) for pair in zip(leaves, keys, strict=True)]))


def thin(
    rows: Rows, exponent: Int[Array, ""], basis: Float[Array, "rows width"], lost: Lost
) -> tuple[Rows, Lost]:
    """Qᵀ M in place of M, and the rest added to what was lost before."""
    kept = jax.tree.map(lambda leaf: jnp.tensordot(basis.T, leaf, 1), rows)
    combine = jax.random.normal(jax.random.key(3), (PROBES, len(basis)), basis.dtype)
    within = combine @ basis
    dropped = jax.tree.map(
        lambda leaf, k: jnp.tensordot(combine, leaf, 1) - jnp.tensordot(within, k, 1), rows, kept
    )
    top = jnp.maximum(exponent, lost.exponent)
    scale_old, scale_new = (_power_of_two(e - top, basis) for e in (lost.exponent, exponent))
    both = jax.tree.map(lambda old, new: old * scale_old + new * scale_new, lost.rows, dropped)
    return kept, Lost(*rescale(both, top))


def _power_of_two(exponent: Int[Array, ""], like: Array) -> Array:
    return jnp.ldexp(jnp.ones((), like.dtype), exponent)


def _sketch(leaf: Float[Array, "rows ..."], key: Array, width: int) -> Float[Array, "rows width"]:
    flat = leaf.reshape(len(leaf), -1)
    size = jnp.linalg.norm(flat)
    return (
        flat
        @ jax.random.normal(key, (flat.shape[1], width), flat.dtype)
        / jnp.where(size > 0, size, 1)
    )
