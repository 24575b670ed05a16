"""The largest eigenvalues of many symmetric tridiagonal matrices at once.

`jax.scipy.linalg.eigh_tridiagonal` bisects, some 60 passes where Laguerre's iteration takes 6: for
1,024 matrices of 12 rows, the pairs of a tile, it takes 2.7 ms, and without the eigenvectors' last
entries; `largest_eigenpair` takes 1.0 ms, and a dense decomposition 96 ms. A map of 256 steps calls
it some 250 times; by this estimate the library's routine would add 0.4 s.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

ROOT_STEPS = 40
"""Most steps of Laguerre's iteration: it converges cubically once eigenvalues are separated."""


class Tridiagonal(NamedTuple):
    """Symmetric tridiagonal matrices T, positive, of which a first number of rows count.

    Attributes:
      diagonal: Along the leading axis.
      beside: ``beside[j]`` stands in row j and column j + 1, and couples the last row that counts
        to whatever comes after it.
    """

    diagonal: Float[Array, " most *matrices"]
    beside: Float[Array, " most *matrices"]


class _Pivots(NamedTuple):
    """Of T - x = L D Lᵀ at one x, from the first pivot to some j."""

    pivot: Array
    slope: Array
    """Its derivative by x, over itself."""
    bend: Array
    """Its second derivative, over itself."""
    first: Array
    """Σ 1/(x - θ_i) over the eigenvalues θ_i."""
    second: Array
    """Σ 1/(x - θ_i)²."""
    length: Array
    """The square of the eigenvector over its last entry, if x is an eigenvalue."""


def largest_eigenpair(
    matrix: Tridiagonal, count: Int[Array, ""]
) -> tuple[Float[Array, "*matrices"], Float[Array, "*matrices"]]:
    """Computes the largest eigenvalue of each matrix, and the last entry of its unit eigenvector.

    Laguerre's iteration from an upper bound decreases to it monotonically.

    Args:
      matrix: The matrices.
      count: The rows that count.

    Source: Golub & Van Loan 2013, section 8.4 (tridiagonal matrices and their pivots).
    """
    index = jnp.arange(len(matrix.beside)).reshape(-1, *(1 for _ in matrix.beside.shape[1:]))
    inner = jnp.where(index < count - 1, matrix.beside, 0)
    spread = inner + jnp.roll(inner, 1, axis=0)
    bound = jnp.max(jnp.where(index < count, matrix.diagonal + spread, 0), axis=0)

    def approach(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        x, _, turn = state
        p = _pivots(matrix, count, x)
        root = jnp.sqrt(jnp.maximum((count - 1) * (count * p.second - p.first**2), 0))
        step = jnp.where(p.first > 0, count / (p.first + root), 0)
        step = jnp.where(jnp.isfinite(step), step, 0)
        moving = jnp.any(step > 4 * jnp.finfo(x.dtype).eps * x)
        return x - step, moving, turn + 1

    begin = bound, jnp.ones((), bool), jnp.zeros((), int)
    value, _, _ = jax.lax.while_loop(lambda s: s[1] & (s[2] < ROOT_STEPS), approach, begin)
    return value, jax.lax.rsqrt(_pivots(matrix, count, value).length)


def is_below_extended(
    matrix: Tridiagonal, count: Int[Array, ""], corner: Array, bound: Array
) -> Bool[Array, "*matrices"]:
    """Decides whether the eigenvalues of each matrix, extended by one row, lie below a bound.

    ::

        ⎡ T     β e ⎤
        ⎣ β eᵀ  c   ⎦ < x   if and only if   x - c > β² / (-p)   where T < x

    with p the last pivot of T - x = L D Lᵀ, which is negative.

    Args:
      matrix: The matrices T, whose eigenvalues lie below the bound.
      count: The rows that count; β is ``beside`` of the last of them.
      corner: The further entry c.
      bound: x.
    """
    pivot = _pivots(matrix, count, bound).pivot
    room = bound - corner
    return (pivot < 0) & (room > 0) & (matrix.beside[count - 1] ** 2 < -pivot * room)


def leading_eigenvectors(
    matrix: Tridiagonal, counts: Int[Array, "*matrices"], values: Float[Array, "*matrices"]
) -> Float[Array, " most *matrices"]:
    """Computes unit eigenvectors of the largest eigenvalues, with a row count for each matrix.

    By T's rows one after the other: s_2 β_1 = -p_1 s_1 and so on, with p the pivots of T - value,
    negative but for the last, so that nothing cancels.
    """

    def body(j: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        entries, pivot, entry = state
        inside = (j < counts) & (matrix.beside[j - 1] > 0) & (entry > 0)
        entry = jnp.where(inside, jnp.maximum(-pivot, 0) * entry / matrix.beside[j - 1], 0)
        pivot = matrix.diagonal[j] - values - matrix.beside[j - 1] ** 2 / pivot
        return entries.at[j].set(entry), pivot, entry

    one = jnp.ones_like(values)
    first = jnp.zeros_like(matrix.diagonal).at[0].set(one), matrix.diagonal[0] - values, one
    entries, _, _ = jax.lax.fori_loop(1, jnp.max(counts), body, first)
    return entries / jnp.linalg.norm(entries, axis=0)


def _pivots(matrix: Tridiagonal, count: Int[Array, ""], x: Array) -> _Pivots:
    tiny = -jnp.finfo(x.dtype).tiny

    def body(j: Array, p: _Pivots) -> _Pivots:
        ratio = jnp.where(j > 0, matrix.beside[j - 1], 0) ** 2 / p.pivot
        pivot = matrix.diagonal[j] - x - ratio
        pivot = jnp.where(pivot == 0, tiny, pivot)
        slope = (ratio * p.slope - 1) / pivot
        bend = ratio * (p.bend - 2 * p.slope**2) / pivot
        first, second = p.first + slope, p.second + slope**2 - bend
        length = 1 + p.length * ratio / p.pivot
        return _Pivots(pivot, slope, bend, first, second, length)

    zero = jnp.zeros_like(x)
    start = _Pivots(zero + 1, zero, zero, zero, zero, zero)
    return jax.lax.fori_loop(0, count, body, start)
