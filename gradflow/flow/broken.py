"""Where a trajectory stops being finite."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from gradflow.unroll import Trajectory


def first_broken_step(trajectory: Trajectory) -> Int[Array, ""]:
    """The step at which a NaN or an infinity enters a trajectory.

    ::

        min { t : an entry of s_t, or of h_t for t > 0, is not finite }

    What is measured behind that step means nothing: a lag T - k with k before it is NaN in
    `log_norms`, and in `summary` counts as a ``broken_lag``.

    Args:
      trajectory: One sequence's, from `unroll`; `jax.vmap` over more.

    Returns:
      The step t, 0 for s_0 itself; -1 where all is finite.
    """
    finite = [_finite(leaf) for leaf in jax.tree.leaves(trajectory.carries)]
    outputs = jnp.concatenate([jnp.ones(1, bool), _finite(trajectory.outputs)])
    broken = ~jnp.all(jnp.stack([*finite, outputs]), axis=0)
    return jnp.where(jnp.any(broken), jnp.argmax(broken), -1)


def _finite(leaf: Array) -> Array:
    return jnp.all(jnp.isfinite(leaf.reshape(len(leaf), -1)), axis=1)
