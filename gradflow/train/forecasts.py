"""Training nets to forecast: seeds and tasks side by side, and the forecasts of all of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Num

from gradflow.cell import Key, Params
from gradflow.devices import map_runs
from gradflow.spec import unknown_name
from gradflow.tasks.forecasting import Split, Windows
from gradflow.train.epochs import Learner, fit_epochs
from gradflow.train.keeper import Keeper
from gradflow.train.optimisers import Optimiser
from gradflow.train.prober import Watch

TASKS = ("one", "direct", "seq2seq")
"""What a net is trained to give: the next value, all of the next, or all of them at every step."""

ENOUGH = 500
"""Windows that a validation looks at."""

SETTLED = 2000
"""Windows that the statistics of a batch norm are of."""


@dataclass(frozen=True)
class Plan:
    """How nets are trained: by Adam, on windows in a new order every epoch.

    Attributes:
      num_epochs: The most epochs.
      batch_size: Windows in an update; those left over are left out of an epoch.
      num_windows: The most windows in an epoch.
      learning_rate: Of Adam.
      falls: Whether the rate falls to zero by a cosine.
      patience: Epochs without a better validation to wait for; None for all, and the last counts.
      num_seeds: Initialisations, each with an order of its own.
      seed: What all random numbers come from.
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
    """The runs of one net, the seeds of each task, side by side as one fit.

    All runs are independent: none hears of another, and Adam is alike for each entry. Parameters
    have the runs in front, the seeds of the first task first.

    Args:
      net: A `gradflow.models.forecasters.Forecaster`.
      data: What each task is trained on; the series of the tasks may differ, not their number.
      plan: For how long, and how.
    """

    def __init__(self, net: Any, data: Mapping[str, Split], plan: Plan) -> None:
        for task in data:
            if task not in TASKS:
                raise ValueError(unknown_name("task of forecasting", task, TASKS))
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
        """A seed's parameters are the same for every task."""
        drawn = jax.vmap(self.net.init)(jax.random.split(key, self.plan.num_seeds))
        tiles = len(self.data)
        return jax.tree.map(lambda a: jnp.tile(a, (tiles, *(1 for _ in a.shape[1:]))), drawn)

    def weights(self, num_steps: int) -> Float[Array, "runs outputs ahead"]:
        """What counts of each run's forecasts, of sum 1."""
        rows = []
        for task in self.data:
            row = np.zeros((num_steps, self.net.ahead))
            row[0 if task == "seq2seq" else -1 :, : 1 if task == "one" else None] = 1
            row = row[self.net.first - 1 :: self.net.stride]
            rows += [row / row.sum()] * self.plan.num_seeds
        return jnp.asarray(np.stack(rows), _default_float())

    def loss(self, params: Params, batch: tuple[Array, Array], key: Key) -> Float[Array, ""]:
        """The sum of all runs' losses."""
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
        """Each run's own order of the windows, the same for a seed's every task."""
        rng = np.random.default_rng((self.plan.seed, epoch))
        order = [rng.permutation(self.there)[: self.count] for _ in range(self.plan.num_seeds)]
        for start in range(0, self.count - self.size + 1, self.size):
            rows = np.stack(order)[:, start : start + self.size]
            x = np.concatenate([data.train.inputs[rows] for data in self.data.values()])
            y = [self._padded(data.train.targets[rows]) for data in self.data.values()]
            yield x.astype(_default_float()), np.concatenate(y).astype(_default_float())

    def settled(self, params: Params) -> Params:
        """The parameters, a batch norm's statistics being those of windows trained on."""
        return self._settled(params, self._for_runs([d.train for d in self.data.values()], SETTLED))

    def validate(self, params: Params) -> dict[str, float]:
        """The mean over the runs of what each is trained for, at the last step."""
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
        self, keeper: Keeper | None = None, watch: Watch | None = None
    ) -> tuple[dict[str, Params], dict[str, np.ndarray]]:
        """Trains: the parameters by task, and what the watch measured along the way, by name.

        The parameters are with a patience the best, else the last.
        """
        steps = fit_epochs(
            self.learner,
            jax.random.key(self.plan.seed),
            self.batches,
            self.validate,
            num_epochs=self.plan.num_epochs,
            patience=self.plan.patience,
            watch=watch,
            keeper=keeper,
        )
        *_, last = steps
        params = self.settled(last.state.params if self.plan.patience is None else last.best_params)
        return {task: self.of_task(task, params) for task in self.data}, last.probes

    def of_task(self, task: str, params: Params) -> Params:
        """Of the parameters of all runs those of one task's, on the host, the seeds in front."""
        first = list(self.data).index(task) * self.plan.num_seeds
        return jax.tree.map(lambda a: np.asarray(a)[first : first + self.plan.num_seeds], params)

    def forecast(
        self, params: Params, inputs: Num[np.ndarray, "windows steps"], *, iterated: bool = False
    ) -> Float[np.ndarray, "seeds windows ahead"]:
        """Every seed's forecasts at the end of windows.

        Args:
          params: Of one task, as `fit` gives them.
          inputs: The windows.
          iterated: Whether each value is the next after a window that ends with those before it.
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
        """Targets with as many values as the net gives; what is added does not count."""
        widths = [(0, 0)] * (targets.ndim - 1) + [(0, self.net.ahead - targets.shape[-1])]
        return np.pad(targets, widths)


def _of(windows: Array) -> Float[Array, "steps windows 1"]:
    """Windows (windows, steps) as nets take them."""
    return windows.T[:, :, None]


def _some(values: np.ndarray, count: int) -> np.ndarray:
    """No more than so many of the values, evenly spread."""
    return values[np.linspace(0, len(values) - 1, min(count, len(values))).astype(int)]


def _default_float() -> Any:
    return jnp.zeros(()).dtype
