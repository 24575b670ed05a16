"""Trains networks to forecast, seeds and tasks side by side, and computes their forecasts."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Num

from gradflow.cell import Key, Params
from gradflow.devices import map_runs
from gradflow.spec import check_name
from gradflow.tasks.forecasting import Split, Windows
from gradflow.train import Learner, Optimiser, Schedule, epochs, fit

TASKS = ("one", "direct", "seq2seq")
"""What a network is trained to forecast: the next value, the next ones, or those at every step."""

ENOUGH = 500
"""The number of windows in a validation."""

SETTLED = 2000
"""The number of windows for the statistics of a batch norm."""


@dataclass(frozen=True)
class Plan:
    """How networks are trained: by Adam, on windows in a new order every epoch.

    Attributes:
      num_epochs: The largest number of epochs.
      batch_size: Windows per update; an incomplete batch at the end of an epoch is skipped.
      num_windows: The largest number of windows in an epoch.
      learning_rate: The learning rate of Adam.
      falls: Whether the rate falls to zero by a cosine.
      patience: Epochs without a better validation before it stops; None takes the last epoch.
      num_seeds: Initialisations, each with an order of its own.
      seed: The seed of all random numbers.
    """

    num_epochs: int
    batch_size: int
    num_windows: int
    learning_rate: float = 0.001
    falls: bool = False
    patience: int | None = None
    num_seeds: int = 1
    seed: int = 0


class Forecasting:
    """The runs of one network, the seeds of each task, trained side by side.

    The runs are independent: the loss is a sum over them, and Adam acts on each entry. Parameters
    have a leading axis of runs, the seeds of the first task first.

    Args:
      net: A `forecasting.forecasters.Forecaster`.
      data: The data of each task; the series of the tasks may differ, not their number.
      plan: How long, and how.

    Raises:
      ValueError: For an unknown task.
    """

    def __init__(self, net: Any, data: Mapping[str, Split], plan: Plan) -> None:
        for task in data:
            check_name("task of forecasting", task, TASKS)
        self.net, self.data, self.plan = net, dict(data), plan
        self.there = min(len(part.train.inputs) for part in data.values())
        self.count = min(plan.num_windows, self.there)
        self.size = min(plan.batch_size, self.count)
        updates = plan.num_epochs * (self.count // self.size)
        falling = partial(optax.cosine_decay_schedule, decay_steps=updates)
        rate = falling if plan.falls else float
        adam = Optimiser(lambda given: optax.adam(rate(given), eps=1e-7), plan.learning_rate)
        self.learner = Learner(self.init, self.loss, adam)
        self._forecasts = jax.jit(map_runs(lambda params, x: net.apply(params, _of(x))[-1]))
        self._settled = jax.jit(map_runs(lambda params, x: net.settle(params, _of(x))))

    def init(self, key: Key) -> Params:
        """Initialises all runs; a seed has the same parameters for every task."""
        initial = jax.vmap(self.net.init)(jax.random.split(key, self.plan.num_seeds))
        tiles = len(self.data)
        return jax.tree.map(lambda a: jnp.tile(a, (tiles, *(1 for _ in a.shape[1:]))), initial)

    def weights(self, num_steps: int) -> Float[Array, "runs outputs ahead"]:
        """Returns the weights of each run's forecasts in its loss, of sum 1."""
        rows = []
        for task in self.data:
            row = np.zeros((num_steps, self.net.ahead))
            row[0 if task == "seq2seq" else -1 :, : 1 if task == "one" else None] = 1
            row = row[self.net.first - 1 :: self.net.stride]
            rows += [row / row.sum()] * self.plan.num_seeds
        return jnp.asarray(np.stack(rows), _default_float())

    def loss(self, params: Params, batch: tuple[Array, Array], key: Key) -> Float[Array, ""]:
        """Computes the sum of all runs' losses."""
        del key  # there is no noise
        inputs, targets = batch

        def one(run: tuple[Params, Array, Array, Array]) -> Array:
            params, x, y, weights = run
            y = jnp.moveaxis(y[:, self.net.first - 1 :: self.net.stride], 0, 1)
            errors = (self.net.train(params, _of(x)) - y) ** 2
            return jnp.sum(weights * jnp.mean(errors, axis=1))

        runs = params, inputs, targets, self.weights(inputs.shape[-1])
        return jnp.sum(map_runs(one, sequential=False)(runs))

    def batches(self, epoch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields each run's windows in its own order, which is the same for all tasks of a seed."""
        rng = np.random.default_rng((self.plan.seed, epoch))
        order = [rng.permutation(self.there)[: self.count] for _ in range(self.plan.num_seeds)]
        for start in range(0, self.count - self.size + 1, self.size):
            rows = np.stack(order)[:, start : start + self.size]
            x = np.concatenate([data.train.inputs[rows] for data in self.data.values()])
            y = [self._padded(data.train.targets[rows]) for data in self.data.values()]
            yield x.astype(_default_float()), np.concatenate(y).astype(_default_float())

    def settled(self, params: Params) -> Params:
        """Sets the statistics of batch norms to those of training windows."""
        return self._settled(params, self._for_runs([d.train for d in self.data.values()], SETTLED))

    def validate(self, params: Params) -> dict[str, float]:
        """Computes the mean loss over the runs, at the last step."""
        parts = [data.valid for data in self.data.values()]
        found = self._forecasts(self.settled(params), self._for_runs(parts, ENOUGH))
        targets = np.stack([self._padded(_some(part.targets[:, -1], ENOUGH)) for part in parts])
        errors = (np.asarray(found, float) - np.repeat(targets, self.plan.num_seeds, axis=0)) ** 2
        last = np.asarray(self.weights(parts[0].inputs.shape[1]), float)[:, -1]
        counted = np.mean(errors, axis=1) * last / last.sum(axis=1, keepdims=True)
        return {"loss": float(counted.sum(axis=1).mean())}

    def _for_runs(
        self, parts: list[Windows], count: int
    ) -> Float[np.ndarray, "runs windows steps"]:
        """Some inputs of each task's part, once for each seed."""
        inputs = np.stack([_some(part.inputs, count) for part in parts])
        return np.repeat(inputs, self.plan.num_seeds, axis=0).astype(_default_float())

    def fit(
        self,
        *,
        measure: Callable[[Params], Mapping[str, np.ndarray]] | None = None,
        probe_every: int = 1,
        folder: Path | None = None,
        identity: Mapping[str, Any] | None = None,
    ) -> tuple[dict[str, Params], dict[str, np.ndarray]]:
        """Trains; returns the parameters by task, and the probes by name.

        With a patience the parameters are those of the best epoch, else of the last.
        """
        source = epochs(
            self.learner,
            jax.random.key(self.plan.seed),
            self.batches,
            self.validate,
            patience=self.plan.patience,
            measure=measure,
        )
        schedule = Schedule(self.plan.num_epochs, probe_every=probe_every)
        *_, last = fit(source, schedule, folder=folder, identity=identity)
        state = last.state
        params = self.settled(state.params if self.plan.patience is None else state.best_params)
        return {task: self.of_task(task, params) for task in self.data}, last.probes

    def of_task(self, task: str, params: Params) -> Params:
        """Selects the parameters of one task's runs, on the host, with a leading axis of seeds."""
        first = list(self.data).index(task) * self.plan.num_seeds
        return jax.tree.map(lambda a: np.asarray(a)[first : first + self.plan.num_seeds], params)

    def forecast(
        self, params: Params, inputs: Num[np.ndarray, "windows steps"], *, iterated: bool = False
    ) -> Float[np.ndarray, "seeds windows ahead"]:
        """Computes every seed's forecasts at the end of windows.

        Args:
          params: The parameters of one task, from `fit`.
          inputs: The windows.
          iterated: Whether the network runs autoregressively, one value at a time.
        """
        x = np.repeat(inputs[None], self.plan.num_seeds, axis=0).astype(_default_float())
        if not iterated:
            return np.asarray(self._forecasts(params, x), float)
        steps = []
        for _ in range(self.net.ahead):
            steps.append(np.asarray(self._forecasts(params, x))[..., :1])
            x = np.concatenate([x[..., 1:], steps[-1]], axis=-1)
        return np.concatenate(steps, axis=-1).astype(float)

    def _padded(self, targets: np.ndarray) -> np.ndarray:
        """Pads the targets to the network's width; the padding has no weight."""
        widths = [(0, 0)] * (targets.ndim - 1) + [(0, self.net.ahead - targets.shape[-1])]
        return np.pad(targets, widths)


def _of(windows: Array) -> Float[Array, "steps windows 1"]:
    """Windows (windows, steps) as networks take them."""
    return windows.T[:, :, None]


def _some(values: np.ndarray, count: int) -> np.ndarray:
    """At most so many of the values, evenly spaced."""
    return values[np.linspace(0, len(values) - 1, min(count, len(values))).astype(int)]


def _default_float() -> Any:
    return jnp.zeros(()).dtype
