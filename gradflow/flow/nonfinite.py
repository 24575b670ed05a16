"""Where a trajectory stops being finite, and which derivatives are set to NaN for it.

Every derivative through a carry with a NaN or an infinity is reported as NaN, even where the step's
own derivative is finite there: ReLU has the derivative 0 at NaN, and that of a linear map does not
depend on the carry at all.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from gradflow.flow.trace import Trace
from gradflow.unroll import Trajectory


def first_nonfinite_step(trajectory: Trajectory) -> Int[Array, ""]:
    """Finds the first step of a trajectory with a NaN or an infinity.

    ::

        min { t : an entry of s_t, or of h_t for t > 0, is not finite }

    Measurements through that step are NaN: a lag T - k with k before it in `log_norms`, which
    `summary` reports as ``nonfinite_lag``.

    Args:
      trajectory: That of one sequence, from `unroll`; `jax.vmap` over more.

    Returns:
      The step t, 0 for s_0 itself; -1 where all is finite.
    """
    outputs = jnp.concatenate([jnp.ones(1, bool), _finite(trajectory.outputs)])
    bad = ~(_finite(trajectory.carries) & outputs)
    return jnp.where(jnp.any(bad), jnp.argmax(bad), -1)


def nonfinite_steps(trace: Trace) -> Bool[Array, " steps"]:
    """Returns which steps start from, or lead to, a carry that is not finite."""
    bad = ~_finite(trace.before)
    last = ~_finite(jax.tree.map(lambda leaf: leaf[None], trace.last))
    return bad | jnp.concatenate([bad, last])[1:]


def nonfinite_from(trace: Trace) -> Bool[Array, " steps_and_one"]:
    """Returns for which k = 0 ... T one of the steps k + 1 ... T is not finite."""
    return jnp.arange(trace.num_steps + 1) < last_nonfinite(nonfinite_steps(trace))


def nonfinite_pairs(trace: Trace) -> Bool[Array, "later earlier"]:
    """Returns for which ``[t, k]``, 0 ... T, one of the steps k + 1 ... t is not finite."""
    up_to = jnp.concatenate([jnp.zeros(1, int), jnp.cumsum(nonfinite_steps(trace))])
    return up_to[:, None] > up_to


def last_nonfinite(steps: Bool[Array, " steps"]) -> Int[Array, ""]:
    """Returns the last t = 1 ... T at which a step is not finite; 0 if all are."""
    return jnp.max(jnp.where(steps, jnp.arange(1, len(steps) + 1), 0))


def set_nan(where: Bool[Array, "..."], measured: Any) -> Any:
    """Replaces the floats of a measurement by NaN where the condition holds, along leading axes."""

    def one(leaf: Array) -> Array:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        condition = where.reshape(where.shape + (1,) * (leaf.ndim - where.ndim))
        return jnp.where(condition, jnp.nan, leaf)

    return jax.tree.map(one, measured)


def _finite(carries: Any) -> Bool[Array, " steps"]:
    """Returns whether all of a pytree is finite, for every place along its leading axis."""
    leaves = jax.tree.leaves(carries)
    each = [jnp.all(jnp.isfinite(leaf.reshape(len(leaf), -1)), axis=1) for leaf in leaves]
    return jnp.all(jnp.stack(each), axis=0)
