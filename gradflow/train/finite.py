"""Training on a finite set of examples by epochs, with validation and a choice of the best epoch.

Real data are finite and of many lengths: the batches come from an iterable of the caller's, in any
shapes. `gradflow.train.runs` trains on tasks that generate their sequences.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from gradflow.cell import Key, Params
from gradflow.train.clipping import Clipping, resolve_clipping
from gradflow.train.descent import Descent, step
from gradflow.train.driver import Progress, Source
from gradflow.train.optimisers import Optimiser

TRAIN_LOSS = "train_loss"

_INIT, _NOISE = range(2)  # folded into the key: two independent streams


@dataclass(frozen=True)
class Learner:
    """What is trained, and how; a value, hashable, and so a static argument of `jax.jit`.

    Attributes:
      init: key -> parameters.
      loss: (parameters, batch, key of the noise, such as dropout) -> mean loss of the batch.
      optimiser: The optimiser, at the learning rate of its spec.
      clipping: The clipping of the gradient.

    Raises:
      ValueError: If the clipping acts inside a recurrence, which a loss does not expose.
    """

    init: Callable[[Key], Params]
    loss: Callable[[Params, Any, Key], Float[Array, ""]]
    optimiser: Optimiser
    clipping: Clipping = resolve_clipping("none")

    def __post_init__(self) -> None:
        if self.clipping.wrap is not None:
            raise ValueError(
                "Expected a clipping that acts on the gradient, got one that acts on the adjoint "
                "inside the recurrence. Use global_norm, or train on a task with "
                "gradflow.train.fresh_sequences."
            )

    @property
    def transformation(self) -> optax.GradientTransformation:
        """From gradients to updates."""
        steps = self.optimiser.make(self.optimiser.learning_rate)
        return optax.chain(self.clipping.transform, steps)


class Learned(NamedTuple):
    """The state of a training by epochs.

    Attributes:
      descent: The newest parameters, and the state of the optimiser.
      update: How many updates have been made.
      epoch: How many epochs have been completed.
      best_params: The parameters of the best epoch, on the host.
      best_epoch: The epoch with the lowest first metric of the validation.
      best: That metric.
    """

    descent: Descent
    update: Int[Array, ""]
    epoch: int
    best_params: Params
    best_epoch: int
    best: float

    @property
    def params(self) -> Params:
        """The newest parameters; the next epoch reuses their memory."""
        return self.descent.params


def epochs(
    learner: Learner,
    key: Key,
    batches: Callable[[int], Iterable[Any]],
    validate: Callable[[Params], Mapping[str, float]],
    *,
    patience: int | None = None,
    measure: Callable[[Params], Mapping[str, np.ndarray]] | None = None,
) -> Source:
    """Makes the source that trains a model by epochs; a schedule counts them as its updates.

    A training stops early after ``patience`` epochs without a new best one, or when its loss is no
    longer finite. Its metrics are ``train_loss``, the mean over the batches of the epoch, and those
    of the validation.

    Args:
      learner: What is trained.
      key: The key of the initial parameters and of the noise.
      batches: epoch, from 0 -> its batches: pytrees of arrays, the same ones at every call for that
        epoch. There is one compilation for each set of shapes.
      validate: parameters -> numbers by name; the epoch with the lowest first one is the best.
      patience: The number of epochs; None for no limit.
      measure: parameters -> arrays by name: what is probed during the training, if anything.

    Raises:
      ValueError: If the patience is below 1; when it is trained, if an epoch has no batches or the
        validation gives nothing.
    """
    if patience is not None and patience < 1:
        raise ValueError(f"Expected patience to be at least 1 or None, got {patience}.")

    def advance(state: Learned, number: int) -> tuple[Learned, dict[str, float]]:
        losses = []
        for _ in range(number):
            state, loss = _one_epoch(learner, key, state, batches(state.epoch))
            losses.append(loss)
        return state, {TRAIN_LOSS: float(np.mean(losses))}

    return Source(
        _begin(learner, key),
        advance,
        partial(_evaluate, validate),
        averages={TRAIN_LOSS: ()},
        is_over=partial(_has_ended, patience),
        probe=None if measure is None else lambda state: measure(state.params),
    )


def _begin(learner: Learner, key: Key) -> Learned:
    params = jax.jit(learner.init)(jax.random.fold_in(key, _INIT))
    live = Descent.start(learner.transformation, params), jnp.zeros((), jnp.int32)
    # Copies: a leaf that stood twice in the state could not be donated to an update.
    descent, update = jax.tree.map(partial(jnp.array, copy=True), live)
    return Learned(descent, update, 0, jax.device_get(params), -1, np.inf)


@partial(jax.jit, static_argnums=0, donate_argnums=(2, 3))
def _update(
    learner: Learner, key: Key, descent: Descent, update: Int[Array, ""], batch: Any
) -> tuple[Descent, Int[Array, ""], Array]:
    noise = jax.random.fold_in(jax.random.fold_in(key, _NOISE), update)
    loss, gradient = jax.value_and_grad(learner.loss)(descent.params, batch, noise)
    return step(learner.transformation, descent, gradient), update + 1, loss


def _one_epoch(
    learner: Learner, key: Key, state: Learned, batches: Iterable[Any]
) -> tuple[Learned, float]:
    losses, descent, update = [], state.descent, state.update
    for batch in batches:
        descent, update, loss = _update(learner, key, descent, update, batch)
        losses.append(loss)
    if not losses:
        raise ValueError("Expected at least one batch per epoch, got none. Give it examples.")
    state = state._replace(descent=descent, update=update, epoch=state.epoch + 1)
    return state, float(np.mean(jax.device_get(losses), dtype=float))


def _evaluate(
    validate: Callable[[Params], Mapping[str, float]], state: Learned
) -> tuple[Learned, Mapping[str, float]]:
    """Validates the newest parameters, and keeps them if they are the best so far."""
    row = validate(state.params)
    if not row or TRAIN_LOSS in row:
        raise ValueError(
            f"Expected validate to return numbers by name, none of them {TRAIN_LOSS!r}, got "
            f"{dict(row)}."
        )
    value = next(iter(row.values()))
    if state.epoch == 0 or value < state.best:
        best = np.inf if np.isnan(value) else float(value)
        params = jax.device_get(state.params)
        state = state._replace(best_params=params, best_epoch=state.epoch, best=best)
    return state, row


def _has_ended(patience: int | None, progress: Progress) -> bool:
    state = progress.state
    diverged = state.epoch > 0 and not np.isfinite(progress.metrics[TRAIN_LOSS][progress.update])
    return diverged or (patience is not None and state.epoch - state.best_epoch >= patience)
