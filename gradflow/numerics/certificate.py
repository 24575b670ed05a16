"""Bounds on spectral norms, and the two stages of a certificate that need no search.

A matrix A has the norm √λ_max(G) with G = A Aᵀ. Whatever search has found the Rayleigh quotient θ,
the norm is certified where G has no eigenvalue from θ (1 + 2 tolerance) on.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gradflow.numerics.lapack import cholesky, eigh
from gradflow.numerics.scaling import log_scaled, rescale

DIRECT, WARM, SEARCHED, INERTIA, DECOMPOSED = range(5)
"""The stages of a certificate, as `NormCertificate` explains them."""


class NormCertificate(NamedTuple):
    """Bounds on log spectral norms, in nats: index = lag, or [t, k] for a map.

    Attributes:
      lower: From a Rayleigh quotient: never above the norm but by rounding.
      upper: Never below the norm but by rounding.
      stage: Which stage decided. 0: a decomposition, for there are few rows, or the block is
        exactly zero; 1: the trace bound near the vectors that the step before left; 2: the
        trace bound after further cycles of the search; 3: a Cholesky factorisation; 4: a
        decomposition, because nothing else did. -1 where nothing is measured.
    """

    lower: Float[Array, "*lags"]
    upper: Float[Array, "*lags"]
    stage: Int[Array, "*lags"]


def tolerance_of(dtype: jnp.dtype) -> float:
    """Returns half the distance of the bounds on a norm, in nats: 5e-10, in float32 2.5e-5.

    In float32 the rounding of G and of its factorisation, about √n eps, must fit into it.
    """
    return max(5e-10, 200 * float(jnp.finfo(dtype).eps))


def by_decomposition(matrix: Float[Array, "rows columns"]) -> Float[Array, ""]:
    """Computes the spectral norm from the eigenvalues of A Aᵀ, for entries near 1.

    Those of one row or two are a formula: LAPACK takes a microsecond for each, which adds up over
    thousands of small blocks.
    """
    if len(matrix) <= 2:
        gram = matrix @ matrix.T
        mean, half = (gram[0, 0] + gram[-1, -1]) / 2, (gram[0, 0] - gram[-1, -1]) / 2
        off_diagonal = gram[0, 1] if len(matrix) == 2 else jnp.zeros_like(mean)
        return jnp.sqrt(mean + jnp.hypot(half, off_diagonal))
    return jnp.sqrt(jnp.maximum(eigh(matrix @ matrix.T)[0][-1], 0))


def is_below(gram: Float[Array, "n n"], bound: Float[Array, ""]) -> Bool[Array, ""]:
    """Decides whether all eigenvalues of a symmetric matrix lie below a bound, by inertia.

    By Sylvester's law the Cholesky factorisation of bound · I - gram exists only then.
    """
    shifted = bound * jnp.eye(len(gram), dtype=gram.dtype) - gram
    return jnp.all(jnp.isfinite(jnp.diagonal(cholesky(shifted))))


_Norms = tuple[Float[Array, " matrices"], Int[Array, " matrices"], Float[Array, "matrices rows"]]
"""Log norms, the stages that decided, or -1, and the leading left singular vectors."""


def certify_one_by_one(
    form: Callable[[Int[Array, ""]], Float[Array, "rows columns"]],
    log_values: Float[Array, "*matrices"],
    stage: Int[Array, "*matrices"],
    vectors: Float[Array, "*matrices rows"],
) -> tuple[Array, Array, Array]:
    """Forms the matrices that the trace has not certified, one by one, and certifies them.

    Those that a Cholesky factorisation does not certify are decomposed. The inner loop of at most
    one iteration is a conditional: under `jax.vmap` `lax.cond` would compute both branches.
    """
    margin = 1 + 2 * tolerance_of(log_values.dtype)

    def one(norms: _Norms) -> _Norms:
        log_values, stage, vectors = norms
        index = jnp.argmin(stage)
        matrix, exponent = rescale(form(index), jnp.zeros((), jnp.int32))
        gram = matrix @ matrix.T
        value = jnp.exp(2 * (log_values[index] - log_scaled(jnp.ones_like(gram[0, 0]), exponent)))
        by_inertia = value, jnp.asarray(INERTIA, stage.dtype), vectors[index]
        fails = ~is_below(gram, value * margin)
        value, decided, vector = jax.lax.while_loop(
            lambda found: fails & (found[1] == INERTIA), lambda _: _decomposed(gram), by_inertia
        )
        log_value = log_scaled(jnp.sqrt(value), exponent)
        return (
            log_values.at[index].set(log_value),
            stage.at[index].set(decided),
            vectors.at[index].set(vector),
        )

    shape = stage.shape
    start = log_values.ravel(), stage.ravel(), vectors.reshape(-1, vectors.shape[-1])
    log_values, stage, vectors = jax.lax.while_loop(lambda norms: jnp.any(norms[1] < 0), one, start)
    return log_values.reshape(shape), stage.reshape(shape), vectors.reshape(*shape, -1)


def _decomposed(gram: Float[Array, "rows rows"]) -> tuple[Array, Array, Array]:
    values, vectors = eigh(gram)
    return jnp.maximum(values[-1], 0), jnp.asarray(DECOMPOSED), vectors[:, -1]
