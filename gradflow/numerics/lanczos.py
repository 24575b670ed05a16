"""The largest singular values of many matrices at once, by products with them alone.

Lanczos steps on G = M Mᵀ for all of the matrices together: a step is one product with each M and
one with each Mᵀ, which are computed as a few large ones where the matrices have factors in common.
Few matrices are formed or decomposed, and each value that is returned is certified.

There are two engines for spectral norms because neither serves both uses (benchmarks/README.md).
For one large matrix after the other, `spectral` starts from a block of vectors of the step before;
single Lanczos vectors take 9 times as long. For many small ones, here, the eigenvalue problems of a
block would cost more than the products: a search along each column of a map took 2.6 times as long.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gradflow.numerics.certificate import (
    DECOMPOSED,
    DIRECT,
    SEARCHED,
    WARM,
    NormCertificate,
    certify_one_by_one,
    tolerance_of,
)
from gradflow.numerics.scaling import log_scaled
from gradflow.numerics.tridiagonal import (
    Tridiagonal,
    is_below_extended,
    largest_eigenpair,
    leading_eigenvectors,
)

MOST_STEPS = 24
"""Lanczos steps at most."""

STRAGGLERS = 0.03
"""Fraction of the matrices that may be left to a decomposition: for so few, another step of all of
them costs more (a map took 1.47 s at 3 %, 1.93 s at 1 %, 1.73 s at 10 %)."""

RESIDUAL = 1e-5
"""Relative residual of an eigenvalue of G at which further steps do not help where the trace does
not decide: the value is then right to 1e-10 over the relative gap to the next."""

HOPELESS = 0.98
"""Trace of the complement, relative to θ, above which further steps are not expected to decide."""

GENERIC = 1e-5
"""Fraction of a generic vector in every start, so that no direction is orthogonal to it. Its square
is below the tolerance, so that a start that was right remains right."""

Apply = Callable[[Float[Array, "*matrices before"]], Float[Array, "*matrices after"]]
"""A vector for each matrix -> its product with that matrix."""


class Matrices(NamedTuple):
    """Matrices given by their products.

    Attributes:
      push: v -> M v, from the columns' space to the rows'.
      pull: u -> Mᵀ u.
      form: The matrix at a flat index among them, for the few that are decomposed.
      trace: tr G = ‖M‖_F².
      rounding: A bound on the rounding error of the trace.
    """

    push: Apply
    pull: Apply
    form: Callable[[Int[Array, ""]], Float[Array, "rows columns"]]
    trace: Float[Array, "*matrices"]
    rounding: Float[Array, "*matrices"]


class _Krylov(NamedTuple):
    """Lanczos vectors of G and the tridiagonal matrix that they make of it, for each matrix."""

    taken: Int[Array, ""]
    """The number of steps."""
    basis: Float[Array, "most *matrices rows"]
    tridiagonal: Tridiagonal
    value: Float[Array, "*matrices"]
    """The largest eigenvalue so far."""
    stage: Int[Array, "*matrices"]
    """Which stage has certified it; -1 where none has."""
    counted: Int[Array, "*matrices"]
    """The steps that its value comes from."""
    is_settled: Bool[Array, "*matrices"]
    """Whether it needs no further step, certified or not."""


def generic_vector(size: int, dtype: jnp.dtype) -> Float[Array, " rows"]:
    """Returns a unit vector with entries of about the same size, the same at every call."""
    key_sign, key_size = jax.random.split(jax.random.key(0))
    sizes = jax.random.uniform(key_size, (size,), dtype, 0.5, 1.5)
    vector = jnp.where(jax.random.bernoulli(key_sign, dtype.type(0.5), (size,)), sizes, -sizes)
    return vector / jnp.linalg.norm(vector)


def log_spectral_norms(
    matrices: Matrices, start: Float[Array, "*matrices rows"]
) -> tuple[NormCertificate, Float[Array, "*matrices rows"]]:
    """Computes the log of the largest singular value of each matrix, with certified bounds.

    After j steps G is the tridiagonal T_j on the Lanczos vectors, coupled by β_j to one direction
    of their complement, on which its largest eigenvalue is at most its trace ρ = tr G - tr T_j.
    So the largest eigenvalue of ::

        ⎡ T_j       β_j e_j ⎤
        ⎣ β_j e_jᵀ  ρ       ⎦

    is an upper bound, and that of T_j, θ, a lower one. Where they agree within the tolerance the
    norm is certified. Where ρ stays above θ, the Cholesky factorisation of θ (1 + 2 tolerance) I
    - G decides, and where that does not exist, the eigenvalues of G.

    There is no reorthogonalisation: as long as no residual ‖G u - θ u‖ is below `RESIDUAL` · θ, the
    Lanczos vectors are orthogonal to eps / `RESIDUAL` (Paige), and once one is, the matrix is
    settled and its further steps are ignored.

    Args:
      matrices: The matrices, with entries not far from 1.
      start: Guesses at the leading left singular vectors, of norm 1.

    Returns:
      The logs of the bounds, -inf where a matrix is exactly zero, with the stage that decided; and
      the leading left singular vectors.

    Source: Golub & Van Loan 2013, section 10.1; Paige 1980, doi:10.1016/0024-3795(80)90167-6.
    """
    start = start + GENERIC * generic_vector(start.shape[-1], start.dtype)
    start = start / jnp.linalg.norm(start, axis=-1, keepdims=True)
    # Entries of the factors are near 1, but what is left of a product may be far smaller.
    pulled = matrices.pull(start)
    is_zero = jnp.all(pulled == 0, axis=-1)
    largest = jnp.max(jnp.abs(pulled), axis=-1)
    _, exponent = jnp.frexp(jnp.where(jnp.isfinite(largest), largest, 1))
    factor = jnp.ldexp(jnp.ones((), start.dtype), -exponent)

    def apply(vector: Array) -> Array:
        scale = factor[..., None]
        return scale * matrices.push(scale * matrices.pull(vector))

    trace, rounding = (square * factor * factor for square in (matrices.trace, matrices.rounding))
    last = _iterate(apply, trace + rounding, start, is_zero)
    log_values = log_scaled(jnp.sqrt(last.value), exponent)
    lower, stage, vectors = certify_one_by_one(
        matrices.form, log_values, last.stage, _leading(last)
    )
    upper = jnp.where(stage == DECOMPOSED, lower, lower + tolerance_of(lower.dtype))
    return NormCertificate(lower, upper, stage), vectors


def _iterate(apply: Apply, trace: Array, start: Array, is_zero: Array) -> _Krylov:
    """Lanczos steps until nearly every matrix is settled."""
    *shape, _ = start.shape
    zeros = jnp.zeros((MOST_STEPS, *shape), start.dtype)
    is_known = is_zero | jnp.isnan(trace)
    first = _Krylov(
        taken=jnp.zeros((), int),
        basis=jnp.zeros((MOST_STEPS + 1, *start.shape), start.dtype).at[0].set(start),
        tridiagonal=Tridiagonal(zeros, zeros),
        value=0 * trace,  # NaN stays
        stage=jnp.where(is_known, DIRECT, -1),
        counted=jnp.ones(shape, int),
        is_settled=is_known,
    )

    def improve(state: _Krylov) -> _Krylov:
        return _check(_step(apply, state), trace)

    def unfinished(state: _Krylov) -> Bool[Array, ""]:
        return (jnp.mean(~state.is_settled) > STRAGGLERS) & (state.taken < MOST_STEPS)

    return jax.lax.while_loop(unfinished, improve, first)


def _step(apply: Apply, state: _Krylov) -> _Krylov:
    j, (diagonal, beside) = state.taken, state.tridiagonal
    vector = state.basis[j]
    back = jnp.where(j > 0, beside[j - 1], 0)
    image = apply(vector) - back[..., None] * state.basis[j - 1]
    along = jnp.sum(image * vector, axis=-1)
    rest = image - along[..., None] * vector
    length = jnp.sqrt(jnp.sum(rest**2, axis=-1))
    following = rest * jnp.where(length == 0, 0, 1 / length)[..., None]
    return state._replace(
        taken=j + 1,
        basis=state.basis.at[j + 1].set(following),
        tridiagonal=Tridiagonal(diagonal.at[j].set(along), beside.at[j].set(length)),
    )


def _check(state: _Krylov, trace: Array) -> _Krylov:
    """The largest eigenvalues so far, and whether they are certified, or as good as they get."""
    value, share = largest_eigenpair(state.tridiagonal, state.taken)
    value = jnp.where(state.is_settled, state.value, value)
    rest = jnp.maximum(trace - jnp.sum(state.tridiagonal.diagonal, axis=0), 0)
    bound = value * (1 + 2 * tolerance_of(value.dtype))
    is_new = ~state.is_settled & is_below_extended(state.tridiagonal, state.taken, rest, bound)
    residual = state.tridiagonal.beside[state.taken - 1] * share
    # `not >` lets a NaN end the search.
    is_hopeless = ~(residual > RESIDUAL * value) & ~(rest < HOPELESS * value)
    return state._replace(
        value=value,
        stage=jnp.where(is_new, jnp.where(state.taken == 1, WARM, SEARCHED), state.stage),
        counted=jnp.where(state.is_settled, state.counted, state.taken),
        is_settled=state.is_settled | is_new | is_hopeless,
    )


def _leading(state: _Krylov) -> Float[Array, "*matrices rows"]:
    """The Ritz vectors."""
    shares = leading_eigenvectors(state.tridiagonal, state.counted, state.value)

    def add(j: Array, total: Array) -> Array:
        return total + shares[j][..., None] * state.basis[j]

    return jax.lax.fori_loop(0, state.taken, add, jnp.zeros_like(state.basis[0]))
