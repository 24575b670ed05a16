"""The Fisher memory of a linear recurrent network with noise, and the networks it is measured for.

::

    h_t = W h_{t-1} + v s_t + z_t    z_t ~ N(0, I)
    J(k) = (W^k v)ᵀ C⁻¹ W^k v        C = Σ_k W^k W^kᵀ    J_tot = Σ_k J(k)

Source: Ganguli, Huh, Sompolinsky 2008, doi:10.1073/pnas.0804451105.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from gradflow import unroll
from gradflow.cells import rnn


def chain(size: int, forward: float, backward: float = 0.0) -> np.ndarray:
    """Gives the W of a chain: forward on the first subdiagonal, backward on the superdiagonal."""
    return forward * np.eye(size, k=-1) + backward * np.eye(size, k=1)


def source(size: int) -> np.ndarray:
    """Gives the v that feeds the first unit alone."""
    return np.eye(size)[0]


def params(W: jax.Array, W_x: jax.Array) -> dict[str, jax.Array]:
    """Gives the parameters of a linear `rnn` without bias."""
    return {"W_h": W, "W_x": W_x, "b": jnp.zeros(len(W))}


def fisher_memory(W: jax.Array, v: jax.Array, num_steps: int) -> jax.Array:
    """Measures J(k) for k < num_steps from the derivatives of the unrolled network by its noise.

    Args:
      W: The recurrent matrix.
      v: The input connectivity, a vector, or several as columns.
      num_steps: The number of steps after which W^k has vanished.

    Returns:
      J, of shape (k,) or (k, columns).
    """
    n = len(W)
    cell = rnn(n, n, activation="identity")

    def last(noise: jax.Array) -> jax.Array:
        return unroll(cell, params(W, jnp.eye(n)), noise).outputs[-1]

    by_noise = jax.jacrev(last)(jnp.zeros((num_steps, n)))  # ∂h_T/∂z_k: (n, step, n)
    powers = by_noise.transpose(1, 0, 2)[::-1]
    # C = RᵀR by a QR of all powers below each other. C is never formed: where signals are
    # amplified its condition is beyond float64, and the scales of R's columns do no harm.
    R = jnp.linalg.qr(powers.transpose(0, 2, 1).reshape(-1, n), mode="r")
    signals = powers @ v.reshape(n, -1)  # (step, n, columns)
    whitened = solve_triangular(R, jnp.moveaxis(signals, 1, 0).reshape(n, -1), trans=1)
    return jnp.sum(whitened**2, axis=0).reshape(num_steps, *v.shape[1:])
