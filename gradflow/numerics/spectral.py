"""The spectral norm of a matrix that changes a little from step to step, with a certificate.

A singular value decomposition at every step of a product costs five times the product. Here the
leading left singular vectors of one step start the search at the next (Rayleigh-Ritz on a block
Krylov space of G = A Aᵀ), and the norm found is returned only where a rigorous upper bound lies
within the tolerance above it. What cannot be certified that way is decomposed. (`lanczos` is the
engine for many small matrices at once, and says with numbers why there are two.)
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gradflow.numerics.certificate import (
    DECOMPOSED,
    DIRECT,
    INERTIA,
    SEARCHED,
    WARM,
    NormCertificate,
    by_decomposition,
    is_below,
    tolerance_of,
)
from gradflow.numerics.distributed import by_columns
from gradflow.numerics.lapack import eigh, qr

SMALL = 32
"""Up to this number of rows a decomposition is the cheaper way from the start."""

TRACKED = 12
"""Leading vectors that are carried from step to step. The trace bound decides once the eigenvalues
that they do not span sum to less than the largest: from lag 20 on for an LSTM of 256 units."""

EXPANDED = 4
"""Leading residuals that enlarge the space in a cycle, each with its image under G."""

MAX_CYCLES = 6
"""Cycles after which a decomposition is the cheaper way."""

LONGEST_PAUSE = 32
"""Most steps in a row that are decomposed without trying a search, after searches that failed."""


class Tracked(NamedTuple):
    """The state of the search, from one step of a product to the next.

    Attributes:
      vectors: Orthonormal guesses at the leading left singular vectors, one a row (products of few
        rows with A are three times as fast as those of A with few columns).
      pause: Steps to decompose before the next search.
      last_pause: How long the pause was that the last failed search caused.
    """

    vectors: Float[Array, "tracked rows"]
    pause: Int[Array, ""]
    last_pause: Int[Array, ""]


class _Ritz(NamedTuple):
    vectors: Float[Array, "tracked rows"]
    """Ritz vectors u, orthonormal, the leading one first."""
    residual: Float[Array, "tracked rows"]
    """G u - θ u."""
    values: Float[Array, " tracked"]
    """Ritz values θ: estimates of the leading eigenvalues of G from below."""
    rest: Float[Array, ""]
    """A bound on the eigenvalues of G compressed to the complement of the space: its trace."""
    is_certified: Bool[Array, ""]


def start_vectors(rows: int, dtype: jnp.dtype) -> Tracked:
    """Returns orthonormal vectors to start from, the same at every call."""
    noise = jax.random.normal(jax.random.key(0), (rows, min(TRACKED, rows)), jnp.float32)
    none = jnp.zeros((), jnp.int32)
    return Tracked(qr(noise.astype(dtype))[0].T, none, none)


def spectral_norm(
    matrix: Float[Array, "rows columns"], tracked: Tracked
) -> tuple[NormCertificate, Tracked]:
    """Computes the spectral norm with certified bounds, and the start for a similar matrix.

    With orthonormal vectors Q, H = Qᵀ G Q, R = G Q - Q H, and C the compression of G to the
    complement of Q, whose largest eigenvalue is at most its trace ρ = ‖A‖_F² - tr H::

        λ_max(G) < x   if   x > ρ   and   x I - H - Rᵀ R / (x - ρ) is positive definite,

    by the Schur complement of x I - C. That is tried with x = θ (1 + 2 tolerance), θ the largest
    Ritz value, after two steps of subspace iteration and after each cycle of the search. Where the
    spectrum is so dense that ρ stays above θ, the Cholesky factorisation of x I - G decides (by
    Sylvester's law of inertia it exists if and only if λ_max < x), and where that fails, the
    eigenvalues of G.

    Args:
      matrix: A, with a largest entry near 1 (its squares must neither under- nor overflow).
      tracked: The result of `start_vectors`, or of the call for a similar matrix.

    Source: Parlett 1998, chapters 10 and 11 (bounds from residuals); Golub & Underwood 1977
    (block Krylov spaces); Knyazev 2001, doi:10.1137/S1064827500366124 (the warm-started block).
    """
    if matrix.shape[0] <= SMALL:
        norm = by_decomposition(matrix)
        return NormCertificate(norm, norm, jnp.asarray(DIRECT, jnp.int32)), tracked
    # Over several devices: from columns, every product below is one sum over the devices.
    matrix = by_columns(matrix)
    margin = 1 + 2 * tolerance_of(matrix.dtype)
    trace = jnp.sum(matrix**2)
    ritz, cycles = _search(matrix, trace, tracked, margin)
    stage = jnp.where(trace == 0, DIRECT, jnp.where(cycles == 0, WARM, SEARCHED))
    # `not >` lets a NaN end the search.
    state = ritz.values[0], ritz.vectors, stage, ritz.is_certified | ~(trace > 0)
    value, vectors, stage, _ = _decide(matrix, state, tracked.pause > 0, margin)
    failed = (stage == DECOMPOSED) & (tracked.pause == 0)
    last_pause = jnp.where(failed, jnp.minimum(2 * tracked.last_pause + 1, LONGEST_PAUSE), 0)
    last_pause = jnp.where(tracked.pause > 0, tracked.last_pause, last_pause)
    pause = jnp.where(failed, last_pause, jnp.maximum(tracked.pause - 1, 0))
    lower = jnp.sqrt(value)
    upper = jnp.where(stage == DECOMPOSED, lower, jnp.sqrt(value * margin))
    return NormCertificate(lower, upper, stage), Tracked(vectors, pause, last_pause)


def _search(
    matrix: Array, trace: Array, tracked: Tracked, margin: float
) -> tuple[_Ritz, Int[Array, ""]]:
    """Cycles until the norm is certified, or until further ones would not help."""

    def unfinished(state: tuple[_Ritz, Array]) -> Bool[Array, ""]:
        ritz, cycle = state
        helps = ~_has_converged(ritz, margin) | (ritz.rest < ritz.values[0])
        may_go_on = (cycle < MAX_CYCLES) & (tracked.pause == 0) & (trace > 0)
        return ~ritz.is_certified & helps & may_go_on

    def improve(state: tuple[_Ritz, Array]) -> tuple[_Ritz, Array]:
        ritz, cycle = state
        return _rayleigh_ritz(matrix, trace, _enlarged(matrix, ritz), margin), cycle + 1

    # Two steps of subspace iteration cost less than the cycle that they mostly spare.
    basis = _normalised((tracked.vectors @ matrix) @ matrix.T)
    basis = qr(_normalised((basis @ matrix) @ matrix.T).T)[0].T
    first = _rayleigh_ritz(matrix, trace, basis, margin)
    return jax.lax.while_loop(unfinished, improve, (first, jnp.zeros((), jnp.int32)))


def _rayleigh_ritz(matrix: Array, trace: Array, basis: Array, margin: float) -> _Ritz:
    """The best vectors in the span of an orthonormal basis, and whether they certify the norm."""
    pulled = basis @ matrix
    values, mix = eigh(pulled @ pulled.T)
    values, mix = values[::-1], mix[:, ::-1].T
    vectors = mix @ basis
    residual = (mix @ pulled) @ matrix.T - values[:, None] * vectors
    rounding = 8 * len(matrix) * jnp.finfo(matrix.dtype).eps * trace
    rest = jnp.maximum(trace - jnp.sum(values), 0) + rounding
    bound = values[0] * margin
    coupling = residual @ residual.T / jnp.where(rest < bound, bound - rest, 1)
    # Between rows and columns of size 1, so that the factorisation's rounding is relative.
    scale = jax.lax.rsqrt(jnp.maximum(bound - values, jnp.finfo(matrix.dtype).tiny))
    is_certified = (rest < bound) & is_below(coupling * scale[:, None] * scale, jnp.ones_like(rest))
    kept = slice(0, TRACKED)
    return _Ritz(vectors[kept], residual[kept], values[kept], rest, is_certified)


def _enlarged(matrix: Array, ritz: _Ritz) -> Float[Array, "enlarged rows"]:
    """An orthonormal basis of the tracked vectors, the leading residuals and their images."""
    near = _normalised(ritz.residual[:EXPANDED])
    far = _normalised((near @ matrix) @ matrix.T)
    return qr(jnp.concatenate([ritz.vectors, near, far]).T)[0].T


def _normalised(rows: Array) -> Array:
    size = jnp.linalg.norm(rows, axis=1, keepdims=True)
    return rows / jnp.where(size > 0, size, 1)


def _has_converged(ritz: _Ritz, margin: float) -> Bool[Array, ""]:
    """Whether θ has converged, judged by the next Ritz value: an estimate, not a bound."""
    theta = ritz.values[0]
    squared = jnp.sum(ritz.residual[0] ** 2)
    return squared <= 0.1 * (margin - 1) * theta * (theta - ritz.values[1])


_Decided = tuple[Float[Array, ""], Float[Array, "tracked rows"], Int[Array, ""], Bool[Array, ""]]
"""The largest eigenvalue of G, the leading vectors, the stage, and whether it is certified."""


def _decide(matrix: Array, state: _Decided, is_paused: Array, margin: float) -> _Decided:
    """Certifies by inertia what is not certified, and decomposes what is then left.

    These are loops of at most one iteration in place of conditionals, of which `jax.vmap` would
    compute both branches; a loop is skipped if no matrix needs it.
    """

    def decomposed(state: _Decided) -> _Decided:
        later = by_columns(_late(matrix, state[0]))
        values, vectors = eigh(later @ later.T)
        vectors = vectors[:, ::-1][:, :TRACKED].T
        return values[-1], vectors, jnp.full_like(state[2], DECOMPOSED), jnp.ones((), bool)

    def by_inertia(state: tuple[_Decided, Array]) -> tuple[_Decided, Array]:
        (value, vectors, stage, _), _ = state
        later, bound = _late((matrix, value * margin), stage)
        later = by_columns(later)
        certified = is_below(later @ later.T, bound)
        stage = jnp.where(certified, INERTIA, stage)
        return (value, vectors, stage, certified), jnp.ones((), bool)

    state, _ = jax.lax.while_loop(lambda s: ~(s[0][3] | s[1]), by_inertia, (state, is_paused))
    return jax.lax.while_loop(lambda s: ~s[3], decomposed, state)


def _late(given: Any, state: Array) -> Any:
    """Returns what is given behind a barrier.

    Without one that depends on the state of the loop, XLA moves what is computed from it out of the
    loop, to every step: the products, and of the bound its multiple of I and the transpose.
    """
    return jax.lax.optimization_barrier((given, state))[0]
