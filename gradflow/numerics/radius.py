"""The spectral radius of a matrix by products alone, on any device."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def spectral_radius(matrix: Float[Array, "n n"]) -> Float[Array, ""]:
    """Computes max |λ_i| of a square matrix, symmetric or not, by squaring it repeatedly.

    With s_j the largest entry in modulus, which is taken out at every squaring (Gelfand)::

        A_0 = A / s_0    A_j = A_{j-1}² / s_j    ρ(A) = lim ‖A^m‖^(1/m) = Π_j s_j^(2^-j)

    ‖A^m‖ is within a factor C of ρ^m, where C depends on the eigenvectors, so that J squarings with
    m = 2^J leave a relative error of log(C)/m; J exceeds the bits of the float type by 6. The
    rounding of squaring j is divided by 2^j: what remains is that of the first few, about n eps
    times the condition of the eigenvalue, as of any algorithm. Where the powers are zero, so is ρ.

    (Eigenvalues of a matrix that is not symmetric are computed on some backends only.)

    Source: Horn & Johnson 2013, corollary 5.6.14 (Gelfand's formula).
    """

    def square(j: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        power, log_radius = state
        product = jnp.matmul(power, power, precision="highest")
        power, log_scale = _unit(product)
        return power, log_radius + jnp.ldexp(log_scale, -j)

    start = _unit(matrix)
    count = jnp.finfo(matrix.dtype).nmant + 7
    return jnp.exp(jax.lax.fori_loop(1, count, square, start)[1])


def _unit(matrix: Array) -> tuple[Array, Array]:
    """The matrix over its largest entry in modulus, and the logarithm of that."""
    largest = jnp.max(jnp.abs(matrix))
    return matrix / jnp.where(largest == 0, 1, largest), jnp.log(largest)
