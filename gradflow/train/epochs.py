"""Fitting a model to a finite set of examples: epochs, validation, and the best of them.

`gradflow.train.fit` trains on tasks that draw their sequences as they need them. Real data are
finite and of many lengths: here batches come from an iterable of the caller's, of any shapes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
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
from gradflow.train.keeper import Keeper
from gradflow.train.optimisers import Optimiser
from gradflow.train.prober import Watch

TRAIN_LOSS = "train_loss"

_INIT, _NOISE = range(2)  # what is folded into the key: two independent streams


@dataclass(frozen=True)
class Learner:
    """What is fitted, and how; a value, hashable, and so a static argument of `jax.jit`.

    Attributes:
      init: key -> parameters.
      loss: (parameters, batch, key of its noise, such as dropout) -> mean loss of the batch.
      optimiser: How, at the learning rate of its spec.
      clipping: What keeps its gradients from being too large.

    Raises:
      ValueError: If the clipping acts inside a recurrence, of which a loss tells nothing.
    """

    init: Callable[[Key], Params]
    loss: Callable[[Params, Any, Key], Float[Array, ""]]
    optimiser: Optimiser
    clipping: Clipping = resolve_clipping("none")

    def __post_init__(self) -> None:
        if self.clipping.wrap is not None:
            raise ValueError(
                "a clipping of the gradient is expected, got one of the adjoint inside the "
                "recurrence; try global_norm, or train on a task with gradflow.train.fit"
            )

    @property
    def transformation(self) -> optax.GradientTransformation:
        """From gradients to updates."""
        steps = self.optimiser.make(self.optimiser.learning_rate)
        return optax.chain(self.clipping.transform, steps)


class State(NamedTuple):
    """What an update changes.

    Attributes:
      params: As the learner's ``init`` makes them.
      opt_state: What the optimiser keeps.
      update: How many updates have been made.
    """

    params: Params
    opt_state: Any
    update: Int[Array, ""]


class Fit(NamedTuple):
    """How far a fit is.

    Attributes:
      state: The newest parameters; after the next epoch they are gone, for their memory is reused.
      epoch: How many epochs have been gone through.
      best_params: Those of the epoch with the lowest first metric, on the host.
      best_epoch: That epoch.
      log: By name, (epochs + 1,), NaN where not reached: ``train_loss``, the mean over the batches
        of an epoch, and what the validation gives, before any update and after each epoch.
      probes: What the watch measured, by name, (times, ...), NaN where not reached.
    """

    state: State
    epoch: int
    best_params: Params
    best_epoch: int
    log: dict[str, np.ndarray]
    probes: dict[str, np.ndarray]


def fit_epochs(
    learner: Learner,
    key: Key,
    batches: Callable[[int], Iterable[Any]],
    validate: Callable[[Params], Mapping[str, float]],
    *,
    num_epochs: int,
    patience: int | None = None,
    watch: Watch | None = None,
    keeper: Keeper | None = None,
) -> Iterator[Fit]:
    """Fits a model and yields after every epoch; the last one yielded is the end.

    It ends after ``num_epochs``, after ``patience`` epochs without a new best, or when the
    training loss is no longer finite. With a keeper it goes on from its last checkpoint, with the
    numbers that it would have had.

    Args:
      learner: What is fitted.
      key: Of the initial parameters and of the noise.
      batches: epoch, from 0 -> its batches: pytrees of arrays, the same ones each time that it is
        asked for that epoch. There is one compilation for each set of shapes.
      validate: parameters -> numbers by name; the lowest first one is the best.
      num_epochs: The most epochs.
      patience: Epochs without a new best to wait for; None for all.
      watch: What is measured along the way, if anything.
      keeper: Where the fit is kept, if anywhere.

    Raises:
      ValueError: If an epoch has no batches, a number is below 1, the validation gives nothing,
        or the keeper has another fit.
    """
    for name, number in (("num_epochs", num_epochs), ("patience", patience)):
        if number is not None and number < 1:
            raise ValueError(f"{name} is expected to be at least 1, got {number}")
    fit = _watched(_begin(learner, key, validate, num_epochs), watch, num_epochs)
    stored = None if keeper is None else keeper.restore(_to_arrays(fit))
    if stored is None:
        _keep(fit, keeper)
    else:
        fit = _from_arrays(stored)
    yield fit
    while fit.epoch < num_epochs and not _has_ended(fit, patience):
        state, train_loss = _one_epoch(learner, key, fit.state, batches(fit.epoch))
        fit = _entered(fit, state, {**validate(state.params), TRAIN_LOSS: train_loss})
        fit = _watched(fit, watch, num_epochs)
        _keep(fit, keeper)
        yield fit


def _begin(
    learner: Learner, key: Key, validate: Callable[[Params], Mapping[str, float]], num_epochs: int
) -> Fit:
    params = jax.jit(learner.init)(jax.random.fold_in(key, _INIT))
    state = State(params, learner.transformation.init(params), jnp.zeros((), jnp.int32))
    state = jax.tree.map(partial(jnp.array, copy=True), state)  # each leaf its own, to be reused
    row = validate(params)
    if not row or TRAIN_LOSS in row:
        raise ValueError(
            f"validate is expected to give numbers by name, none of them {TRAIN_LOSS!r}, "
            f"got {dict(row)}"
        )
    log = {name: np.full(num_epochs + 1, np.nan) for name in (*row, TRAIN_LOSS)}
    return _entered(Fit(state, -1, params, -1, log, {}), state, row)


@partial(jax.jit, static_argnums=0, donate_argnums=2)
def _update(learner: Learner, key: Key, state: State, batch: Any) -> tuple[State, Array]:
    noise = jax.random.fold_in(jax.random.fold_in(key, _NOISE), state.update)
    loss, gradient = jax.value_and_grad(learner.loss)(state.params, batch, noise)
    steps, opt_state = learner.transformation.update(gradient, state.opt_state, state.params)
    return State(optax.apply_updates(state.params, steps), opt_state, state.update + 1), loss


def _one_epoch(
    learner: Learner, key: Key, state: State, batches: Iterable[Any]
) -> tuple[State, float]:
    losses = []
    for batch in batches:
        state, loss = _update(learner, key, state, batch)
        losses.append(loss)
    if not losses:
        raise ValueError("at least one batch an epoch is expected, got none: are there examples?")
    return state, float(np.mean(jax.device_get(losses), dtype=float))


def _entered(fit: Fit, state: State, row: Mapping[str, float]) -> Fit:
    """The fit after one more epoch, with what was found of it."""
    epoch = fit.epoch + 1
    log = {name: values.copy() for name, values in fit.log.items()}
    for name, value in row.items():
        log[name][epoch] = value
    criterion = log[next(iter(log))][: epoch + 1]
    if fit.epoch < 0 or criterion[-1] < np.nanmin(criterion[:-1], initial=np.inf):
        fit = fit._replace(best_params=jax.device_get(state.params), best_epoch=epoch)
    return fit._replace(state=state, epoch=epoch, log=log)


def _watched(fit: Fit, watch: Watch | None, num_epochs: int) -> Fit:
    """The fit with what is measured after its epoch, if anything is then."""
    if watch is None:
        return fit
    return fit._replace(probes=watch.entered(fit.probes, fit.state.params, fit.epoch, num_epochs))


def _has_ended(fit: Fit, patience: int | None) -> bool:
    diverged = fit.epoch > 0 and not np.isfinite(fit.log[TRAIN_LOSS][fit.epoch])
    return diverged or (patience is not None and fit.epoch - fit.best_epoch >= patience)


def _keep(fit: Fit, keeper: Keeper | None) -> None:
    if keeper is not None:
        row = {name: values[fit.epoch] for name, values in fit.log.items()}
        keeper.keep(fit.epoch, _to_arrays(fit), {"epoch": fit.epoch, **row}, {})


def _to_arrays(fit: Fit) -> Fit:
    counts = {"epoch": np.int64(fit.epoch), "best_epoch": np.int64(fit.best_epoch)}
    return jax.device_get(fit._replace(**counts))


def _from_arrays(stored: Fit) -> Fit:
    state = jax.tree.map(jnp.array, stored.state)
    return stored._replace(state=state, epoch=int(stored.epoch), best_epoch=int(stored.best_epoch))
