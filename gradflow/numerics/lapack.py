"""Matrix decompositions that cannot deadlock under `jax.vmap` on a CPU.

jaxlib (0.10) distributes a batch of decompositions over the CPU's thread pool, from which it is
itself run, and waits there. Two batches at once, such as the orthogonal matrices of two gates for
several seeds, take all threads of a small machine and wait for each other for ever. One
decomposition at a time waits for nobody: so under `jax.vmap` these are executed sequentially.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap
from jaxtyping import Array, Float


def _one_at_a_time(function: Callable[..., Any]) -> Callable[..., Any]:
    sequential = sequential_vmap(function)

    def call(matrix: Array) -> Any:
        return (sequential if jax.default_backend() == "cpu" else function)(matrix)

    return call


_cholesky = _one_at_a_time(lambda matrix: jnp.linalg.cholesky(matrix))
_eigh = _one_at_a_time(lambda matrix: tuple(jnp.linalg.eigh(matrix)))
_qr = _one_at_a_time(lambda matrix: tuple(jnp.linalg.qr(matrix)))
_singular_values = _one_at_a_time(lambda matrix: jnp.linalg.svd(matrix, compute_uv=False))


def cholesky(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Computes `jnp.linalg.cholesky`: the lower factor, NaN if not positive definite."""
    return _cholesky(matrix)


def eigh(matrix: Float[Array, "n n"]) -> tuple[Float[Array, " n"], Float[Array, "n n"]]:
    """Computes `jnp.linalg.eigh`: ascending eigenvalues, and eigenvectors as columns."""
    return _eigh(matrix)


def qr(matrix: Float[Array, "n m"]) -> tuple[Float[Array, "n k"], Float[Array, "k m"]]:
    """Computes `jnp.linalg.qr`: the factors Q and R of the reduced decomposition."""
    return _qr(matrix)


def singular_values(matrix: Float[Array, "n m"]) -> Float[Array, " k"]:
    """Computes descending singular values, as `jnp.linalg.svd`; not differentiable."""
    return _singular_values(matrix)
