"""The largest singular values of many matrices at once, of which nothing but products is known.

Lanczos steps on G = M Mᵀ for all of the matrices together: a step is one product with each M and
one with each Mᵀ, which are done as a few large ones where the matrices have factors in common.
No matrix is decomposed, and none need be formed.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gradflow.flow.spectral import by_decomposition
from gradflow.flow.steps import log_scaled, rescale
from gradflow.flow.tridiagonal import largest_eigenvalue

FIRST_STEPS, MORE_STEPS, MOST_STEPS = 6, 3, 48
"""Lanczos steps before the first look at what has been found, between two looks, and at most."""

STRAGGLERS = 0.03
"""Share of the matrices that is left to be decomposed: for so few, a step of all is too much."""

RESIDUAL = 1e-6
"""Residual of an eigenvalue of G, as a share of it, at which it counts as found, in float64."""

Apply = Callable[[Float[Array, "*matrices before"]], Float[Array, "*matrices after"]]
"""A vector for each matrix -> its product with that matrix."""


class Matrices(NamedTuple):
    """Matrices by what they do.

    Attributes:
      push: v -> M v, from the columns' space to the rows'.
      pull: u -> Mᵀ u.
      form: The matrix at a flat index among them, for the few that are decomposed.
    """

    push: Apply
    pull: Apply
    form: Callable[[Int[Array, ""]], Float[Array, "rows columns"]]


class _Krylov(NamedTuple):
    """Lanczos vectors of G and the tridiagonal matrix that they make of it, for each matrix."""

    taken: Int[Array, ""]
    """How many steps."""
    vector: Float[Array, "*matrices rows"]
    before: Float[Array, "*matrices rows"]
    diagonal: Float[Array, "most *matrices"]
    beside: Float[Array, "most *matrices"]
    """``beside[j]`` couples the j-th vector to the next."""
    scale: Float[Array, "*matrices"]
    """The largest entry of the tridiagonal matrix."""
    value: Float[Array, "*matrices"]
    """The largest eigenvalue so far."""
    found: Bool[Array, "*matrices"]


def log_spectral_norms(
    matrices: Matrices, like: Float[Array, "*matrices rows"]
) -> Float[Array, "*matrices"]:
    """The natural logarithm of the largest singular value of each matrix.

    An eigenvalue of G lies within the residual ‖r‖ of the Ritz value θ, and θ is within ‖r‖²/gap
    of it. That it is the largest follows from the start: no coordinate of it is small, so that a
    direction cannot stay unseen before ‖r‖ has shrunk to `RESIDUAL` · θ, unless it differs from θ
    by about as little. There is no reorthogonalisation: what is lost by it are further copies of
    values that have been found.

    Args:
      matrices: The matrices, with entries not far from 1.
      like: Zeros: the number of matrices and of their rows, and the float type.

    Returns:
      Logarithms; -inf where a matrix is exactly zero.

    Source: Golub & Van Loan 2013, section 10.1; Paige 1980, doi:10.1016/0024-3795(80)90167-6
    (values found without reorthogonalisation).
    """
    start = jnp.broadcast_to(_start(like.shape[-1], like.dtype), like.shape)
    # Entries of the factors are near 1, but what is left of a product may be far smaller.
    pulled = matrices.pull(start)
    is_zero = jnp.all(pulled == 0, axis=-1)
    largest = jnp.max(jnp.abs(pulled), axis=-1)
    _, exponent = jnp.frexp(jnp.where(jnp.isfinite(largest), largest, 1))
    factor = jnp.ldexp(jnp.ones((), like.dtype), -exponent)[..., None]

    def apply(vector: Array) -> Array:
        return factor * matrices.push(factor * matrices.pull(vector))

    last = _iterate(apply, start)
    log_values = log_scaled(jnp.where(is_zero, 0, jnp.sqrt(last.value)), exponent)
    return _decompose(matrices, log_values, last.found | is_zero)


def _start(size: int, dtype: jnp.dtype) -> Float[Array, " rows"]:
    """A unit vector whose entries are all of about the same size."""
    key_sign, key_size = jax.random.split(jax.random.key(0))
    sizes = jax.random.uniform(key_size, (size,), dtype, 0.5, 1.5)
    vector = jax.random.rademacher(key_sign, (size,), dtype) * sizes
    return vector / jnp.linalg.norm(vector)


def _iterate(apply: Apply, start: Array) -> _Krylov:
    """Lanczos steps until the largest eigenvalue of nearly each matrix is found."""
    *shape, _ = start.shape
    tolerance = max(RESIDUAL, _rounding(start.dtype))
    zeros = jnp.zeros((MOST_STEPS, *shape), start.dtype)
    first = _Krylov(
        taken=jnp.zeros((), int),
        vector=start,
        before=jnp.zeros_like(start),
        diagonal=zeros,
        beside=zeros,
        scale=zeros[0],
        value=zeros[0],
        found=zeros[0] > 0,
    )

    def improve(state: _Krylov) -> _Krylov:
        more = jnp.where(state.taken == 0, FIRST_STEPS, MORE_STEPS)
        state = jax.lax.fori_loop(0, more, lambda _, s: _step(apply, s), state)
        value, share = largest_eigenvalue(state.diagonal, state.beside, state.taken)
        residual = state.beside[state.taken - 1] * share
        value = jnp.where(state.found, state.value, value)
        # `not >` lets a NaN end the search.
        return state._replace(value=value, found=state.found | ~(residual > tolerance * value))

    def unfinished(state: _Krylov) -> Bool[Array, ""]:
        return (jnp.mean(~state.found) > STRAGGLERS) & (state.taken < MOST_STEPS)

    return jax.lax.while_loop(unfinished, improve, first)


def _rounding(dtype: jnp.dtype) -> float:
    return 16 * float(jnp.finfo(dtype).eps)


def _step(apply: Apply, state: _Krylov) -> _Krylov:
    j, vector = state.taken, state.vector
    back = jnp.where(j > 0, state.beside[j - 1], 0)
    image = apply(vector) - back[..., None] * state.before
    along = jnp.sum(image * vector, axis=-1)
    rest = image - along[..., None] * vector
    length = jnp.sqrt(jnp.sum(rest**2, axis=-1))
    scale = jnp.maximum(state.scale, jnp.maximum(along, length))
    # What rounding alone has left would bring a second copy of the values found.
    length = jnp.where(length <= _rounding(vector.dtype) * scale, 0, length)
    return state._replace(
        taken=j + 1,
        vector=rest * jnp.where(length == 0, 0, 1 / length)[..., None],
        before=vector,
        diagonal=state.diagonal.at[j].set(along),
        beside=state.beside.at[j].set(length),
        scale=scale,
    )


def _decompose(matrices: Matrices, log_values: Array, found: Array) -> Array:
    """The log norms, of which those not found are taken from a decomposition, one by one."""

    def one(state: tuple[Array, Array]) -> tuple[Array, Array]:
        log_values, found = state
        index = jnp.argmin(found)
        matrix, exponent = rescale(matrices.form(index), jnp.zeros((), jnp.int32))
        log_value = log_scaled(by_decomposition(matrix), exponent)
        return log_values.at[index].set(log_value), found.at[index].set(True)

    start = log_values.ravel(), found.ravel()
    log_values, _ = jax.lax.while_loop(lambda state: ~jnp.all(state[1]), one, start)
    return log_values.reshape(found.shape)
