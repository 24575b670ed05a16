"""Where a trajectory stops being finite, and what that makes of a measurement."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from gradflow.flow.steps import Steps
from gradflow.unroll import Trajectory


def first_broken_step(trajectory: Trajectory) -> Int[Array, ""]:
    """The step at which a NaN or an infinity enters a trajectory.

    ::

        min { t : an entry of s_t, or of h_t for t > 0, is not finite }

    What is measured through that step means nothing and is NaN: a lag T - k with k before it in
    `log_norms`, and in `summary` a ``broken_lag``.

    Args:
      trajectory: One sequence's, from `unroll`; `jax.vmap` over more.

    Returns:
      The step t, 0 for s_0 itself; -1 where all is finite.
    """
    outputs = jnp.concatenate([jnp.ones(1, bool), _finite(trajectory.outputs)])
    broken = ~(_finite(trajectory.carries) & outputs)
    return jnp.where(jnp.any(broken), jnp.argmax(broken), -1)


def broken_steps(steps: Steps) -> Bool[Array, " steps"]:
    """Which steps come from, or go to, a carry that is not finite.

    The derivative that the step's program has there may be finite all the same (that of relu
    at NaN is 0, that of a linear map does not look at all), and is not to be believed.
    """
    broken = ~_finite(steps.before)
    last = ~_finite(jax.tree.map(lambda leaf: leaf[None], steps.last))
    return broken | jnp.concatenate([broken, last])[1:]


def broken_lags(steps: Steps) -> Bool[Array, " lags"]:
    """For which lags T - k = 0 ... T one of the steps k + 1 ... T is broken."""
    return jnp.arange(steps.num_steps + 1) > steps.num_steps - last_broken(broken_steps(steps))


def broken_pairs(steps: Steps) -> Bool[Array, "later earlier"]:
    """For which t and k = 0 ... T one of the steps k + 1 ... t is broken, ``[t, k]``."""
    up_to = jnp.concatenate([jnp.zeros(1, int), jnp.cumsum(broken_steps(steps))])
    return up_to[:, None] > up_to


def last_broken(broken: Bool[Array, " steps"]) -> Int[Array, ""]:
    """The last t = 1 ... T at which step t is broken; 0 if none is."""
    return jnp.max(jnp.where(broken, jnp.arange(1, len(broken) + 1), 0))


def void(broken: Bool[Array, "..."], measured: Any) -> Any:
    """NaN in place of what was measured where it is broken, along the leading axes."""

    def one(leaf: Array) -> Array:
        where = broken.reshape(broken.shape + (1,) * (leaf.ndim - broken.ndim))
        return jnp.where(where, jnp.nan, leaf)

    return jax.tree.map(one, measured)


def _finite(carries: Any) -> Bool[Array, " steps"]:
    """Whether all of a pytree is finite, for every place along its leading axis."""
    leaves = jax.tree.leaves(carries)
    each = [jnp.all(jnp.isfinite(leaf.reshape(len(leaf), -1)), axis=1) for leaf in leaves]
    return jnp.all(jnp.stack(each), axis=0)
