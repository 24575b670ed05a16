"""The orthonormal frame after a step whose condition number exceeds the digits of the float type.

A saturated unit shrinks a column or row of a step Jacobian by a factor such as 1e-26. In the
product with a frame, whose entries are sums, such a direction is rounded away beside the others. In
the step Jacobian itself each entry has full precision, however small it is.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.numerics.lapack import qr
from gradflow.numerics.qr import ROUNDING, gram_schmidt


def graded_frame(
    frame: Float[Array, "rows carry"], matrix: Float[Array, "carry carry"]
) -> tuple[Float[Array, "rows carry"], Float[Array, " rows"]]:
    """Computes Q' and log L_ii of Q A = L Q', for a frame Q and a matrix A of any condition.

    With A = X Δ Y from `rank_revealing`, where X and Y are well conditioned::

        Q X Δ = L_1 U      U Y = L_2 Q'      L = L_1 L_2

    No sum mixes entries of Δ of different size: Householder reflections of Δ (Q X)ᵀ, its rows in
    descending order, have an error that is small beside every single row.

    Returns:
      The new frame and the growths in nats; zeros and -inf where A cuts a row, to rounding of its
      entries.

    Source: Demmel, Gu, Eisenstat, Slapničar, Veselić, Drmač 1999,
    doi:10.1016/S0024-3795(99)00134-2 (X Δ Y); Cox & Higham 1998, doi:10.1007/BF02510365 (rows).
    """
    left, pivots, right = rank_revealing(matrix)
    order = jnp.argsort(-jnp.abs(pivots))
    scaled = (frame @ left)[:, order] * pivots[order]
    directions, upper = qr(scaled.T)
    first = jnp.diagonal(upper)
    kept = jnp.sign(first)[:, None] * directions.T  # zero where a row is cut
    frame, lower = gram_schmidt(kept @ right[order])
    return frame, jnp.log(jnp.abs(first)) + jnp.log(jnp.diagonal(lower))


def rank_revealing(
    matrix: Float[Array, "n n"],
) -> tuple[Float[Array, "n n"], Float[Array, " n"], Float[Array, "n n"]]:
    """Computes X, Δ and Y with A = X diag(Δ) Y, by elimination with complete pivoting.

    The columns of X and the rows of Y have a largest entry of 1, and Δ comes in about descending
    order. An entry that the elimination has reduced to rounding of its largest value is zero.
    """
    size = len(matrix)
    relative = ROUNDING * size * jnp.finfo(matrix.dtype).eps

    def eliminate(i: Array, state: tuple[Array, ...]) -> tuple[Array, ...]:
        rest, largest, left, pivots, right = state
        place = jnp.argmax(jnp.where(jnp.abs(rest) > relative * largest, jnp.abs(rest), 0))
        row, column = place // size, place % size
        pivot = rest[row, column]
        pivot = jnp.where(jnp.abs(pivot) > relative * largest[row, column], pivot, 0)
        over = jnp.where(pivot == 0, 1, pivot)
        x = jnp.where(pivot == 0, 0, rest[:, column] / over)
        y = jnp.where(pivot == 0, 0, rest[row] / over)
        update = x[:, None] * rest[row]
        rest = (rest - update).at[row].set(0).at[:, column].set(0)
        largest = jnp.maximum(largest, jnp.abs(update))
        return rest, largest, left.at[:, i].set(x), pivots.at[i].set(pivot), right.at[i].set(y)

    zeros = jnp.zeros_like(matrix)
    state = matrix, jnp.abs(matrix), zeros, jnp.zeros_like(matrix[0]), zeros
    _, _, left, pivots, right = jax.lax.fori_loop(0, size, eliminate, state)
    return left, pivots, right
