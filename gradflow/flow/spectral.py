"""The spectral norm of a matrix that changes a little at a time, without decomposing it.

A singular value decomposition at every step of a product costs five times the product. Here the
leading singular vectors of one step start the search at the next: Rayleigh-Ritz on a small
block Krylov space of G = A Aᵀ, until a bound on the error is met. The rare matrix on which
that is slow (its leading singular values lie dense, as one step after an orthogonal start) is
decomposed after all.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gradflow.lapack import eigenvalues, eigh, qr

BLOCK = 4
"""How many leading vectors are tracked, so that the first may change places with the next."""

MAX_CYCLES = 8
"""Cycles after which a decomposition is the cheaper way."""

SMALL = 16
"""Up to this size a decomposition is the cheaper way from the start."""


class _Search(NamedTuple):
    vectors: Float[Array, "rows block"]
    """Ritz vectors u, orthonormal, the leading one first."""
    pulled: Float[Array, "block columns"]
    """uᵀ A."""
    image: Float[Array, "rows block"]
    """G u."""
    values: Float[Array, " block"]
    """Ritz values: estimates of the leading eigenvalues of G from below."""
    next_value: Float[Array, ""]
    """An estimate of the eigenvalue after those."""


def start_vectors(rows: int, dtype: jnp.dtype) -> Float[Array, "rows block"]:
    """Some orthonormal vectors to start from, the same at every call."""
    noise = jax.random.normal(jax.random.key(0), (rows, min(BLOCK, rows)), dtype)
    return qr(noise)[0]


def spectral_norm(
    matrix: Float[Array, "rows columns"], vectors: Float[Array, "rows block"], tolerance: float
) -> tuple[Float[Array, ""], Float[Array, "rows block"]]:
    """The spectral norm, and the leading left singular vectors as a start for a like matrix.

    Args:
      matrix: A, with entries not far from 1 (its squares must neither under- nor overflow).
      vectors: Orthonormal guesses at its left singular vectors.
      tolerance: Relative error allowed in the norm.

    The error of the Ritz value θ of the leading Ritz vector u, r = G u - θ u, is at most
    min(‖r‖, ‖r‖²/gap) with gap the distance to the eigenvalues outside the block (Parlett 1998,
    theorem 11.7.1); that is what the tolerance is held against. A direction that the
    block has not seen shows on the diagonal of G, exactly so where units are decoupled: the search
    goes on while an entry there is larger than θ, and the unit vector that explains most joins it.

    Source: Golub & Underwood 1977 (block Lanczos); Knyazev 2001, doi:10.1137/S1064827500366124
    (the warm-started block).
    """
    if matrix.shape[0] <= SMALL:
        return by_decomposition(matrix), vectors
    row_squares = jnp.sum(matrix**2, axis=1)
    first = _rayleigh_ritz(matrix, vectors, vectors.T @ matrix)

    def unfinished(state: tuple[_Search, Array]) -> Bool[Array, ""]:
        search, cycle = state
        return ~_converged(search, row_squares, tolerance) & (cycle < MAX_CYCLES)

    def improve(state: tuple[_Search, Array]) -> tuple[_Search, Array]:
        search, cycle = state
        return _expand(matrix, search, row_squares), cycle + 1

    search, _ = jax.lax.while_loop(unfinished, improve, (first, jnp.zeros((), jnp.int32)))
    # A loop of at most one turn, and not a conditional: under vmap it is skipped if all are done.
    norm, _ = jax.lax.while_loop(
        lambda state: ~state[1],
        lambda state: (by_decomposition(_late(matrix, state[0])), jnp.ones((), bool)),
        (jnp.sqrt(search.values[0]), _converged(search, row_squares, tolerance)),
    )
    return norm, search.vectors


def _late(matrix: Array, state: Array) -> Array:
    """The matrix, such that XLA cannot move what is done with it out of the loop over the state."""
    return jax.lax.optimization_barrier((matrix, state))[0]


def by_decomposition(matrix: Float[Array, "rows columns"]) -> Float[Array, ""]:
    """The spectral norm from the eigenvalues of A Aᵀ, of entries near 1."""
    return jnp.sqrt(eigenvalues(matrix @ matrix.T)[-1])


def _rayleigh_ritz(matrix: Array, basis: Array, pulled: Array) -> _Search:
    """The best vectors in the span of a basis, of which pulled = basisᵀ A is known.

    The basis need not be independent: directions that it holds only by rounding are left out.
    """
    lengths, frame = eigh(basis.T @ basis)
    least = 64 * jnp.finfo(matrix.dtype).eps ** 0.5
    whiten = frame * jnp.where(lengths > least, jax.lax.rsqrt(jnp.maximum(lengths, least)), 0)
    white = whiten.T @ pulled
    values, mix = eigh(white @ white.T)
    mix = mix[:, ::-1][:, :BLOCK]
    leading, following = values[::-1][:BLOCK], values[::-1][BLOCK:]
    vectors, pulled = basis @ (whiten @ mix), mix.T @ white
    return _Search(vectors, pulled, matrix @ pulled.T, leading, jnp.max(following, initial=0))


def _expand(matrix: Array, search: _Search, row_squares: Array) -> _Search:
    """The best vectors in the span of the old, two turns of their residuals, and a new one."""
    residual = search.image - search.vectors * search.values
    unseen = jnp.argmax(_unexplained(search, row_squares))
    unit = jax.nn.one_hot(unseen, matrix.shape[0], dtype=matrix.dtype)[:, None]
    near = _normalise(residual)
    near_pulled = near.T @ matrix
    far = _normalise(matrix @ near_pulled.T)
    return _rayleigh_ritz(
        matrix,
        jnp.concatenate([search.vectors, near, far, unit], axis=1),
        jnp.concatenate([search.pulled, near_pulled, far.T @ matrix, matrix[unseen][None]]),
    )


def _normalise(columns: Array) -> Array:
    size = jnp.linalg.norm(columns, axis=0)
    return columns / jnp.where(size > 0, size, 1)


def _unexplained(search: _Search, row_squares: Float[Array, " rows"]) -> Float[Array, " rows"]:
    """The diagonal of G less the part of the tracked vectors."""
    return row_squares - jnp.sum(search.vectors**2 * search.values, axis=1)


def _converged(search: _Search, row_squares: Array, tolerance: float) -> Bool[Array, ""]:
    leading = search.values[0]
    residual = jnp.linalg.norm(search.image[:, 0] - search.vectors[:, 0] * leading)
    gap = leading - search.next_value
    bound = jnp.minimum(residual, residual**2 / jnp.where(gap > 0, gap, residual))
    seen = jnp.max(row_squares) <= leading * (1 + 2 * tolerance)
    # An error of the square is twice that of the norm; `not >` lets a NaN end the search.
    return ~(bound > 2 * tolerance * leading) & seen
