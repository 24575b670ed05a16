"""Singular values of a graded matrix, with full relative accuracy also of the smallest.

A graded matrix is D B: rows B of moderate condition, each with a scale of its own. A product of
many Jacobians is one, with scales that span hundreds of orders of magnitude. A decomposition with
an error relative to the largest entry (as those of LAPACK) loses all but the first few values.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from gradflow.numerics.qr import gram_schmidt, unit_scale

BLOCK = 8
"""Rows of a block, at most."""

MOST_SWEEPS = 40
"""Most sweeps of rotations; ten are rarely needed."""


def graded_svd(
    log_scale: Float[Array, " rows"], matrix: Float[Array, "rows columns"]
) -> tuple[Float[Array, " values"], Float[Array, "values columns"]]:
    """Computes log singular values and right singular vectors of diag(exp(log_scale)) matrix.

    With the rows sorted by size, D B = D L Q is reduced to D L = (D L D⁻¹) D and, from the left,
    to U D with U upper triangular; both keep the condition of B, since the entries that they
    scale only shrink. The rows of U D are turned orthogonal by one-sided Jacobi rotations that
    know the scales by their logarithms alone. Every value comes with a relative error of about
    eps times the condition of B with its rows scaled to length one.

    Returns:
      Log singular values in nats, -inf for those that are zero to rounding (see
      `gram_schmidt`), and the vectors as orthonormal rows, zero where the value is.

    Source: Demmel & Veselić 1992, doi:10.1137/0613074; Drmač & Veselić 2008,
    doi:10.1137/050639193 (the two reductions first).
    """
    count = min(matrix.shape)
    scale, unit = _sorted_rows(log_scale, matrix)
    if len(matrix) == 1:
        return scale, unit
    frame, lower = gram_schmidt(unit)
    pivots = jnp.argsort(jnp.diagonal(lower) == 0, stable=True)[:count]
    kept = jnp.diagonal(lower)[pivots] != 0
    frame, pivot_scale = frame[pivots], jnp.where(kept, scale[pivots], 0)
    upper = jnp.linalg.qr(_ratios(scale, pivot_scale) * lower[:, pivots], mode="r")
    rows = orthogonal_rows(pivot_scale, _ratios(pivot_scale, pivot_scale).T * upper)
    lengths = jnp.linalg.norm(rows, axis=1)
    log_values = jnp.where(kept, pivot_scale + jnp.log(lengths), -jnp.inf)
    vectors = (rows / jnp.where(kept, lengths, 1)[:, None]) @ frame
    order = jnp.argsort(-log_values)
    return log_values[order], vectors[order]


def _sorted_rows(log_scale: Array, matrix: Array) -> tuple[Array, Array]:
    """The logarithms of the rows' lengths, descending, and the rows at length one."""
    unit, largest = unit_scale(matrix)
    lengths = jnp.linalg.norm(unit, axis=1)
    scale = log_scale + jnp.log(largest) + jnp.log(lengths)
    unit = jnp.where(jnp.isneginf(scale), 0, 1 / lengths)[:, None] * unit
    order = jnp.argsort(-scale)
    return scale[order], unit[order]


def _ratios(above: Float[Array, " rows"], below: Float[Array, " columns"]) -> Array:
    """exp(above_i - below_j) where that is at most 1; elsewhere what it multiplies is zero."""
    return jnp.exp(jnp.minimum(above[:, None] - below, 0))


def orthogonal_rows(
    log_scale: Float[Array, " rows"], matrix: Float[Array, "rows columns"]
) -> Float[Array, "rows columns"]:
    """Rotates the rows of diag(exp(log_scale)) matrix until they are orthogonal.

    Two rows x, y with the scale of y at ratio ρ <= 1 to that of x turn by tan θ = ρ τ::

        τ = 2 x·y / (|x|² - ρ²|y|² + √((|x|² - ρ²|y|²)² + 4 ρ² (x·y)²))
        x <- cos θ (x + ρ² τ y)     y <- cos θ (y - τ x)

    so that where ρ underflows, y is just projected against x. A sweep rotates every pair at least
    once: blocks of rows are paired, all pairs of blocks at a time; the rotation of a pair is
    computed from its Gram matrix, and applied to the rows as one product.
    """
    size = len(log_scale)
    blocks = 2 * max(1, -(-size // (2 * BLOCK)))
    height = -(-size // blocks)
    padding = blocks * height - size
    scale = jnp.pad(log_scale, (0, padding)).reshape(blocks, height)
    rows = jnp.pad(matrix, ((0, padding), (0, 0))).reshape(blocks, height, -1)
    order = _tournament(blocks)
    # Rotations converge by squares: after a sweep that met no larger cosine, none counts.
    tolerance = float(jnp.finfo(matrix.dtype).eps) ** (2 / 3)

    def meet(_: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        rows, scale, worst = state
        pairs = jnp.concatenate(jnp.split(rows, 2), axis=1)
        turns, cosine = jax.vmap(_turns)(
            pairs @ pairs.mT, jnp.concatenate(jnp.split(scale, 2), axis=1)
        )
        rows = jnp.concatenate(jnp.split(turns @ pairs, 2, axis=1))
        return rows[order], scale[order], jnp.maximum(worst, jnp.max(cosine))

    def sweep(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        rows, _, count = state
        start = rows, scale, jnp.zeros((), rows.dtype)
        rows, _, worst = jax.lax.fori_loop(0, blocks - 1, meet, start)
        return rows, worst, count + 1

    def unfinished(state: tuple[Array, Array, Array]) -> Bool[Array, ""]:
        _, worst, count = state
        return (worst > tolerance) & (count < MOST_SWEEPS)

    begin = rows, jnp.full((), jnp.inf, rows.dtype), jnp.zeros((), int)
    rows, _, _ = jax.lax.while_loop(unfinished, sweep, begin)
    return rows.reshape(blocks * height, -1)[:size]


def _tournament(size: int) -> np.ndarray:
    """The order of the next round, such that after size - 1 of them every pair has met once.

    In a round the one at i meets the one at i + size/2; 0 keeps its place, the others go round
    it. After the last round all are back.
    """
    half = size // 2
    ring = [*range(1, half), *range(size - 1, half - 1, -1)]
    order = np.arange(size)
    order[ring] = np.roll(ring, 1)
    return order


def _turns(
    gram: Float[Array, "rows rows"], log_scale: Float[Array, " rows"]
) -> tuple[Float[Array, "rows rows"], Float[Array, ""]]:
    """The product of a sweep of rotations for rows with this Gram matrix; their largest cosine."""
    size = len(gram)
    lengths = jnp.sqrt(jnp.diagonal(gram))
    cosines = gram / _or_one(lengths[:, None] * lengths)
    worst = jnp.max(jnp.abs(cosines * (1 - jnp.eye(size, dtype=gram.dtype))))
    order = _tournament(size)

    def turn(_: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        gram, turns, scale = state
        rotate = partial(_rotate, *_angles(gram, scale))
        gram = rotate(rotate(gram).T)[order][:, order]
        return gram, rotate(turns)[order], scale[order]

    start = gram, jnp.eye(size, dtype=gram.dtype), log_scale
    return jax.lax.fori_loop(0, size - 1, turn, start)[1], worst


def _angles(gram: Array, scale: Array) -> tuple[Array, Array, Array]:
    """cos θ, and how much of y goes to x and of x to y, for each pair (i, i + size/2)."""
    half = len(scale) // 2
    diagonal = jnp.diagonal(gram)
    xx, yy, xy = diagonal[:half], diagonal[half:], jnp.diagonal(gram, half)
    # Rows further apart than this are as good as infinitely far, and nothing overflows.
    apart = jnp.clip(scale[half:] - scale[:half], -40, 40)
    x_leads = xx >= jnp.exp(2 * apart) * yy
    ratio = jnp.exp(jnp.where(x_leads, apart, -apart))
    gap = jnp.where(x_leads, xx, yy) - ratio**2 * jnp.where(x_leads, yy, xx)
    tau = 2 * xy / _or_one(gap + jnp.sqrt(gap**2 + (2 * ratio * xy) ** 2))
    cos = 1 / jnp.sqrt(1 + (ratio * tau) ** 2)
    small = ratio**2 * tau
    return cos, jnp.where(x_leads, small, -tau), jnp.where(x_leads, -tau, small)


def _rotate(cos: Array, to_x: Array, to_y: Array, rows: Array) -> Array:
    x, y = jnp.split(rows, 2)
    turned = cos[:, None] * (x + to_x[:, None] * y), cos[:, None] * (y + to_y[:, None] * x)
    return jnp.concatenate(turned)


def _or_one(divisor: Array) -> Array:
    return jnp.where(divisor > 0, divisor, 1)
