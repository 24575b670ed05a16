"""The paths through a network that no zero slope breaks."""

import jax
import jax.numpy as jnp


def log_live_paths(W_h: jax.Array, slopes: jax.Array) -> jax.Array:
    """Computes log(live paths / all paths) from h_k to h_T, for every lag T - k = 0 ... T.

    In a network h_t = φ(a_t), a_t = W_x x_t + W_h h_{t-1} + b, a path is a chain of units that no
    zero of W_h breaks; it is dead if φ' is exactly 0 at a unit on it after the first. With A the
    pattern of W_h, 1 where it is not zero, and D_t = diag(1 where φ'(a_t) ≠ 0)::

        ∂h_T/∂h_k = Σ over the chains of units i_k ... i_T:  Π_t φ'(a_t)_{i_t} (W_h)_{i_t i_{t-1}}
        fraction of live paths = 1ᵀ D_T A ... D_{k+1} A 1 / 1ᵀ A ... A 1

    If all paths are dead, ∂h_T/∂h_k is exactly zero. The number of live ones does not give its
    size, because live paths can cancel, or each be small.

    Args:
      W_h: The recurrent weights.
      slopes: φ'(a_t) for t = 1 ... T.

    Returns:
      Log fractions in nats, index = lag. Exactly -inf where no path is live; NaN where W_h has none
      to begin with.

    Source: Glorot, Bordes, Bengio 2011, AISTATS (paths of active units).
    """
    pattern = (W_h != 0).astype(W_h.dtype)

    def back(counts: tuple, slope: jax.Array) -> tuple[tuple, jax.Array]:
        live, every = pattern.T @ jnp.where(slope != 0, counts[0], 0), pattern.T @ counts[1]
        totals = jnp.sum(live), jnp.sum(every)
        scaled = live / jnp.where(totals[0] > 0, totals[0], 1), every / totals[1]
        return scaled, jnp.log(totals[0]) - jnp.log(totals[1])

    ones = jnp.ones(len(W_h), W_h.dtype) / len(W_h)  # counts, up to a factor that the sum keeps
    _, changes = jax.lax.scan(back, (ones, ones), slopes[::-1])
    return jnp.concatenate([jnp.zeros(1, W_h.dtype), jnp.cumsum(changes)])
