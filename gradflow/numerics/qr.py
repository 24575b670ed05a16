"""Orthonormal frames of rows: A = L Q with L lower triangular and the rows of Q orthonormal.

The rows span what a product of step Jacobians has not yet shrunk away. Where a row depends on
those above it, to rounding, the frame has a row of zeros: that direction is cut.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gradflow.numerics.distributed import by_columns, by_rows

PANEL = 32
"""Rows that are made orthonormal at once; between panels there are only products of matrices."""

ROUNDING = 8
"""Units of rounding by which a row of a product may be off."""


def unit_scale(
    matrix: Float[Array, "rows columns"],
) -> tuple[Float[Array, "rows columns"], Float[Array, " rows"]]:
    """Divides each row by its largest entry, so that squares stay in range; returns both."""
    largest = jnp.max(jnp.abs(matrix), axis=1)
    return matrix / jnp.where(largest > 0, largest, 1)[:, None], largest


def gram_schmidt(
    matrix: Float[Array, "rows columns"],
) -> tuple[Float[Array, "rows columns"], Float[Array, "rows rows"]]:
    """Computes the frame Q and the factor L, row by row, each projected twice.

    ::

        r = a_i - Σ_{j<i} L_ij q_j,   L_ij = q_j · a_i,   L_ii = ‖r‖,   q_i = r / L_ii

    Each row of A is met to rounding of its own size. With a_i - r = Σ x_p a_p, a change of the
    rows by rounding moves r by as much as `ROUNDING` · eps · (‖a_i‖ + Σ |x_p| ‖a_p‖): a row with
    a rest no larger depends on those above it, and has L_ii = 0 and q_i = 0.

    Source: Giraud, Langou, Rozložník, van den Eshof 2005, doi:10.1007/s00211-005-0615-4 (twice
    is enough).
    """
    sizes = jnp.linalg.norm(matrix, axis=1)
    relative = ROUNDING * jnp.finfo(matrix.dtype).eps

    def project(i: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        frame, lower, inverse = state
        first = frame @ matrix[i]
        rest = matrix[i] - first @ frame
        second = frame @ rest
        rest = rest - second @ frame
        mix = (first + second) @ inverse
        norm = jnp.linalg.norm(rest)
        dependent = norm <= relative * (sizes[i] + jnp.abs(mix) @ sizes)
        over_norm = jnp.where(dependent, 0, 1 / norm)
        lower = lower.at[i].set((first + second).at[i].set(jnp.where(dependent, 0, norm)))
        inverse = inverse.at[i].set(over_norm * (-mix).at[i].set(1))
        return frame.at[i].set(over_norm * rest), lower, inverse

    square = jnp.zeros((len(matrix), len(matrix)), matrix.dtype)
    return jax.lax.fori_loop(0, len(matrix), project, (jnp.zeros_like(matrix), square, square))[:2]


@jax.custom_jvp
def log_frame(
    matrix: Float[Array, "rows columns"],
) -> tuple[Float[Array, "rows columns"], Float[Array, " rows"]]:
    """Computes the frame Q and log L_ii of at most as many rows as columns, mostly by products.

    Panels of rows are projected against the panels above as blocks, and made orthonormal one by
    one. Q is orthonormal to rounding times the condition of A, which for the growth along a
    product is enough: L Q = A holds to rounding, so the factors multiply up to the product's
    own. Where a row depends on others, `gram_schmidt` does it all.

    Source: Stewart 2008, doi:10.1137/070682563.
    """
    unit, largest = unit_scale(matrix)
    if len(unit) == 1:  # by itself it depends on none, and a decomposition costs more than a step
        size = jnp.linalg.norm(unit, axis=1)
        return unit / jnp.where(size > 0, size, 1)[:, None], jnp.log(size) + jnp.log(largest)
    unit = by_columns(unit)
    frame, diagonal = _orthonormalise(unit)
    suspect = jnp.finfo(matrix.dtype).eps ** 0.75 * jnp.linalg.norm(unit, axis=1)
    ended = jnp.cumsum(largest[::-1])[::-1] == 0  # no more rows but zeros
    # A loop of at most one turn, and not a conditional: under vmap it is skipped if all are fine.
    frame, diagonal, _ = jax.lax.while_loop(
        lambda state: ~state[2],
        lambda _: _carefully(unit),
        (frame, diagonal, jnp.all((diagonal > suspect) | ended)),
    )
    return by_rows(frame), jnp.log(diagonal) + jnp.log(largest)


@log_frame.defjvp
def _(
    primals: tuple[Array], tangents: tuple[Array]
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    # With M = L⁻¹ dA and X = M Qᵀ: X = L⁻¹ dL + dQ Qᵀ, of which the first is lower triangular
    # and the second antisymmetric, so that the upper triangle of X tells them apart.
    (matrix,), (change,) = primals, tangents
    frame, log_diagonal = log_frame(matrix)
    lower = jnp.tril(matrix @ frame.T)
    cut = jnp.diagonal(lower) == 0
    solvable = lower + jnp.diag(cut.astype(lower.dtype))
    moved = jax.lax.linalg.triangular_solve(solvable, change, left_side=True, lower=True)
    moved = jnp.where(cut[:, None], 0, moved)
    mixed = moved @ frame.T
    upper = jnp.triu(mixed, 1)
    return (frame, log_diagonal), (moved + (upper - upper.T - mixed) @ frame, jnp.diagonal(mixed))


def _carefully(matrix: Array) -> tuple[Array, Array, Bool[Array, ""]]:
    frame, lower = gram_schmidt(matrix)
    return frame, jnp.diagonal(lower), jnp.ones((), bool)


def _orthonormalise(matrix: Array) -> tuple[Array, Array]:
    """The frame and the diagonal of L, of rows that do not depend on others."""
    if len(matrix) <= PANEL:
        # On a CPU, LAPACK on a panel this narrow keeps to one core; a call that hands such small
        # work out to all of them can wait for one that is busy elsewhere.
        return jax.lax.platform_dependent(matrix, cpu=_householder, default=_cholesky_twice)
    half = -(-len(matrix) // (2 * PANEL)) * PANEL
    frame, diagonal = _orthonormalise(matrix[:half])
    rest = matrix[half:]
    below, more = _orthonormalise(rest - (rest @ frame.T) @ frame)
    return jnp.concatenate([frame, below]), jnp.concatenate([diagonal, more])


def _householder(panel: Array) -> tuple[Array, Array]:
    frame, upper = jnp.linalg.qr(panel.T)
    diagonal = jnp.diagonal(upper)
    return frame.T * jnp.sign(diagonal)[:, None], jnp.abs(diagonal)


def _cholesky_twice(panel: Array) -> tuple[Array, Array]:
    """The same by products of matrices; NaN where a condition beyond 1/√eps makes it fail.

    Source: Yamamoto, Nakatsukasa, Yanagisawa, Fukaya 2015, ETNA 44, 306.
    """

    def once(rows: Array) -> tuple[Array, Array]:
        gram = rows @ rows.T
        zero = (jnp.diagonal(gram) == 0).astype(gram.dtype)
        lower = jax.lax.linalg.cholesky(gram + jnp.diag(zero), symmetrize_input=False)
        rows = jax.lax.linalg.triangular_solve(lower, rows, left_side=True, lower=True)
        return rows, jnp.diagonal(lower) - zero

    frame, first = once(panel)
    frame, second = once(frame)
    return frame, first * second
