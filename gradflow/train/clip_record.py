"""A record of what a clipping did, kept in the state of the optimiser."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from gradflow.cell import Params
from gradflow.train.direction import compare, norm


class ClipStats(NamedTuple):
    """How often and how much a clipping has acted on gradients.

    Attributes:
      num_updates: Updates so far.
      acted: The number of updates at which the clipping changed the gradient.
      norm_before: The norm of the last gradient before clipping.
      norm_after: The norm of the last gradient after clipping.
      cosine: The cosine of the angle between the two.
      mean_ratio: The mean of norm_after / norm_before over all updates.
    """

    num_updates: Int[Array, ""]
    acted: Int[Array, ""]
    norm_before: Float[Array, ""]
    norm_after: Float[Array, ""]
    cosine: Float[Array, ""]
    mean_ratio: Float[Array, ""]


class Unclipped(NamedTuple):
    """The gradient without the clipping inside the recurrence.

    Attributes:
      gradient: The gradient.
      acted: Whether the clipping acted. (Comparing two gradients cannot tell: two computations of
        the same gradient differ by rounding.)
    """

    gradient: Params
    acted: Bool[Array, ""]


class RecordedState(NamedTuple):
    """The state of a clipping that records what it does.

    Attributes:
      stats: The record.
      inner: The state of the clipping itself.
    """

    stats: ClipStats
    inner: Any


def recorded(clipping: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Wraps a clipping so that its state holds `ClipStats` of its input and output.

    Its update takes an `Unclipped` as ``unclipped``, whose gradient then replaces the input.
    """
    clipping = optax.with_extra_args_support(clipping)

    def init(params: Params) -> RecordedState:
        one = jnp.ones((), jnp.result_type(*jax.tree.leaves(params)))
        none = jnp.zeros((), jnp.int32)
        stats = ClipStats(none, none, 0 * one, 0 * one, cosine=one, mean_ratio=one)
        return RecordedState(stats, clipping.init(params))

    def update(
        updates: Params,
        state: Any,
        params: Params | None = None,
        *,
        unclipped: Unclipped | None = None,
        **extra: Any,
    ) -> tuple[Params, Any]:
        clipped, inner = clipping.update(updates, state.inner, params, **extra)
        before = Unclipped(updates, _differ(updates, clipped)) if unclipped is None else unclipped
        return clipped, RecordedState(_updated(state.stats, before, clipped), inner)

    return optax.GradientTransformationExtraArgs(init, update)


def _differ(before: Params, after: Params) -> Bool[Array, ""]:
    """Whether any entry was changed; NaN before and after counts as unchanged."""

    def changed(a: Array, b: Array) -> Array:
        return jnp.any((a != b) & ~(jnp.isnan(a) & jnp.isnan(b)))

    return jnp.any(jnp.stack(jax.tree.leaves(jax.tree.map(changed, before, after))))


def _updated(stats: ClipStats, unclipped: Unclipped, after: Params) -> ClipStats:
    before, acted = unclipped
    cosine, ratio = compare(after, before)
    count = stats.num_updates + 1
    return ClipStats(
        num_updates=count,
        acted=stats.acted + acted,
        norm_before=norm(before),
        norm_after=norm(after),
        cosine=cosine,
        mean_ratio=stats.mean_ratio + (ratio - stats.mean_ratio) / count.astype(ratio.dtype),
    )


def norm_ratio(stats: ClipStats) -> Float[Array, ""]:
    """Computes norm_after / norm_before of the last gradient; 1 where both are zero."""
    same = stats.norm_after == stats.norm_before
    return jnp.where(same, 1, stats.norm_after / jnp.where(same, 1, stats.norm_before))


def clip_stats(opt_state: Any) -> ClipStats:
    """Finds the record of the clipping in the state of a chain of optax transformations.

    Raises:
      ValueError: If there is none, or more than one.
    """
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, ClipStats))
    found = [leaf for leaf in leaves if isinstance(leaf, ClipStats)]
    if len(found) != 1:
        raise ValueError(
            f"Expected the state of one clipping in the state of the optimiser, got {len(found)}. "
            "Chain one transform of resolve_clipping(...) before the optimiser."
        )
    return found[0]
