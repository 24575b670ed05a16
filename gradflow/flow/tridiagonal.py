"""The largest eigenvalues of many symmetric tridiagonal matrices at once."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

ROOT_STEPS = 40
"""Steps of Laguerre's iteration, at most: it converges by cubes, once values are told apart."""


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


def largest_eigenvalue(
    diagonal: Float[Array, "most *matrices"],
    beside: Float[Array, "most *matrices"],
    count: Int[Array, ""],
) -> tuple[Float[Array, "*matrices"], Float[Array, "*matrices"]]:
    """The largest eigenvalue of each matrix, and the last entry of its unit eigenvector.

    Laguerre's iteration from a bound above it comes down on it without passing it.

    Args:
      diagonal: The diagonals, of positive matrices, along the leading axis.
      beside: What stands beside it: ``beside[j]`` in row j and column j + 1.
      count: The rows that count.

    Source: Golub & Van Loan 2013, section 8.4 (tridiagonal matrices and their pivots).
    """
    index = jnp.arange(len(beside)).reshape(-1, *(1 for _ in beside.shape[1:]))
    inner = jnp.where(index < count - 1, beside, 0)
    spread = inner + jnp.roll(inner, 1, axis=0)
    bound = jnp.max(jnp.where(index < count, diagonal + spread, 0), axis=0)
    squares = jnp.roll(inner, 1, axis=0) ** 2

    def pivots(x: Array) -> _Pivots:
        tiny = -jnp.finfo(x.dtype).tiny

        def body(j: Array, p: _Pivots) -> _Pivots:
            ratio = squares[j] / p.pivot
            pivot = diagonal[j] - x - ratio
            pivot = jnp.where(pivot == 0, tiny, pivot)
            slope = (ratio * p.slope - 1) / pivot
            bend = ratio * (p.bend - 2 * p.slope**2) / pivot
            first, second = p.first + slope, p.second + slope**2 - bend
            length = 1 + p.length * ratio / p.pivot
            return _Pivots(pivot, slope, bend, first, second, length)

        zero = jnp.zeros_like(x)
        start = _Pivots(zero + 1, zero, zero, zero, zero, zero)
        return jax.lax.fori_loop(0, count, body, start)

    def approach(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        x, _, turn = state
        p = pivots(x)
        root = jnp.sqrt(jnp.maximum((count - 1) * (count * p.second - p.first**2), 0))
        step = jnp.where(p.first > 0, count / (p.first + root), 0)
        step = jnp.where(jnp.isfinite(step), step, 0)
        moving = jnp.any(step > 4 * jnp.finfo(x.dtype).eps * x)
        return x - step, moving, turn + 1

    begin = bound, jnp.ones((), bool), jnp.zeros((), int)
    value, _, _ = jax.lax.while_loop(lambda s: s[1] & (s[2] < ROOT_STEPS), approach, begin)
    return value, jax.lax.rsqrt(pivots(value).length)
