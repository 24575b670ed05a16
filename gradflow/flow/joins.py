"""What is measured of a carry that falls into blocks, from what is measured of each of them."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradflow.flow.decoupled import Part
from gradflow.flow.structure import Structure
from gradflow.numerics.certificate import NormCertificate


def joined_norms(norm: str, parts: Sequence[Part]) -> NormCertificate:
    """Computes the norm of a matrix from those of its blocks: the largest; Frobenius, the root of
    the sum of squares."""
    lower, upper, stage = (
        jnp.concatenate(leaves) for leaves in zip(*(part.found for part in parts), strict=True)
    )
    if norm != "frobenius":
        return NormCertificate(*(jnp.max(leaf, axis=0) for leaf in (lower, upper, stage)))
    counts = np.concatenate([np.full(len(part.found.lower), part.members) for part in parts])
    log_counts = np.log(counts).reshape(-1, *(1,) * (lower.ndim - 1))
    squares = 2 * lower + log_counts.astype(lower.dtype)
    log_norms = jax.nn.logsumexp(squares, axis=0) / 2
    return NormCertificate(log_norms, log_norms, jnp.max(stage, axis=0))


def joined_values(structure: Structure, parts: Sequence[Part]) -> Float[Array, "lags values"]:
    """Returns the singular values of all blocks in descending order; those that no block has are
    zero."""
    columns = joined_columns(parts)
    columns.append(jnp.full((len(columns[0]), structure.num_values), -jnp.inf, columns[0].dtype))
    descending = -jnp.sort(-jnp.concatenate(columns, axis=1), axis=1)
    return descending[:, : structure.num_values]


def joined_columns(parts: Sequence[Part]) -> list[Float[Array, "steps columns"]]:
    """Returns what is measured at each step in all blocks, side by side, for each group."""
    columns = []
    for found, members in parts:
        values = jnp.moveaxis(found, 0, -1)  # (steps, values, classes)
        columns.append(jnp.repeat(values, members, axis=-1).reshape(len(values), -1))
    return columns
