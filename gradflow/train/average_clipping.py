"""Clipping of the gradient at a multiple of the average norm so far."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from gradflow.cell import Params
from gradflow.train.direction import norm


class AverageNorm(NamedTuple):
    """The mean of the bounded norms of the gradients so far.

    Attributes:
      num_updates: The number of gradients.
      mean: Their mean.
    """

    num_updates: Int[Array, ""]
    mean: Float[Array, ""]


def clip_by_average(factor: float | Array) -> optax.GradientTransformation:
    """Clips the global norm at a factor, which may be traced, times the mean norm so far.

    A norm enters the mean as at most ten times the mean before it, so that one explosion does not
    lift the threshold out of reach; a norm that is not finite enters as that mean.
    """

    def init(params: Params) -> AverageNorm:
        dtype = jnp.result_type(*jax.tree.leaves(params))
        return AverageNorm(jnp.zeros((), jnp.int32), jnp.zeros((), dtype))

    def update(updates: Params, state: Any, params: Params | None = None) -> tuple[Params, Any]:
        del params
        threshold = jnp.where(state.num_updates > 0, factor * state.mean, jnp.inf)
        clipped, _ = optax.clip_by_global_norm(threshold).update(updates, optax.EmptyState())
        return clipped, _include(state, norm(updates))

    return optax.GradientTransformation(init, update)


def _include(state: AverageNorm, size: Float[Array, ""]) -> AverageNorm:
    most = jnp.where(state.num_updates > 0, 10 * state.mean, jnp.inf)
    counted = jnp.where(jnp.isfinite(size), jnp.minimum(size, most), state.mean)
    count = state.num_updates + 1
    return AverageNorm(count, state.mean + (counted - state.mean) / count.astype(size.dtype))
