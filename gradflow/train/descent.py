"""Gradient descent: one update of parameters, and a scan of updates for trainings inside `jax.jit`.

Every training of the project updates its parameters here, so that there is one place where an
optimiser meets a gradient.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import optax
from jaxtyping import PyTree

from gradflow.cell import Params

GradientFn = Callable[[Params, Any], tuple[Params, Any]]
"""(parameters, batch) -> (gradient, record): what an update needs, and what is to be kept of it."""


class Descent(NamedTuple):
    """What an update changes.

    Attributes:
      params: The parameters.
      opt_state: The state of the optimiser.
    """

    params: Params
    opt_state: Any

    @classmethod
    def start(cls, optimiser: optax.GradientTransformation, params: Params) -> "Descent":
        """Returns the state before the first update."""
        return cls(params, optimiser.init(params))


def step(
    optimiser: optax.GradientTransformation, descent: Descent, gradient: Params, **extra: Any
) -> Descent:
    """Makes one update: θ <- θ + optimiser(gradient).

    Args:
      optimiser: From gradients to updates.
      descent: The state before.
      gradient: Like the parameters.
      extra: Further arguments of the optimiser's update.
    """
    updates, opt_state = optimiser.update(gradient, descent.opt_state, descent.params, **extra)
    return Descent(cast(Params, optax.apply_updates(descent.params, updates)), opt_state)


def descend(
    gradient: GradientFn,
    optimiser: optax.GradientTransformation,
    descent: Descent,
    batches: PyTree,
) -> tuple[Descent, Any]:
    """Makes one update for each batch, by `jax.lax.scan`; pure, for use inside `jax.jit`.

    Args:
      gradient: (parameters, batch) -> (gradient, record). The gradient is the caller's, who may
        clip or scale it, and so is the choice of what is recorded: a loss that nobody asks for is
        not computed.
      optimiser: From gradients to updates.
      descent: From `Descent.start`, or from the call before.
      batches: A pytree of arrays with the updates along the leading axis, such as keys.

    Returns:
      The state after the last update, and the records, with the updates along the leading axis.
    """

    def update(descent: Descent, batch: Any) -> tuple[Descent, Any]:
        slope, record = gradient(descent.params, batch)
        return step(optimiser, descent, slope), record

    return jax.lax.scan(update, descent, batches)
