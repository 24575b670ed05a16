"""Measuring the models of runs under training, now and then, on the same sequences."""

import functools
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gradflow.cell import Params
from gradflow.devices import map_runs

Values = Mapping[str, Array]
"""What is measured, by name."""

Measure = Callable[[Params, Any], Values]


class Prober:
    """Measures the models of runs whenever it is called, in float64, and keeps the medians.

    Args:
      measure: (parameters of one run, one sequence) -> arrays by name. It is compiled once for
        all probers that have an equal one, and so should be hashable by value.
      sequences: A pytree of arrays with an axis of sequences in front: the median is over them.
    """

    def __init__(self, measure: Measure, sequences: Any) -> None:
        self._measure = measure
        self._sequences = _to_float64(sequences)

    def __call__(self, params: Params) -> dict[str, np.ndarray]:
        """Arrays by name, (runs, ...), of parameters with a leading axis of runs."""
        with jax.enable_x64(True):
            compiled = _compiled(self._measure)
            return jax.device_get(compiled(_to_float64(params), self._sequences))

    def shapes(self, params: Params) -> dict[str, jax.ShapeDtypeStruct]:
        """The shapes of what a call would return, and its errors, without measuring."""
        with jax.enable_x64(True):
            medians = partial(_medians, self._measure)
            return jax.eval_shape(medians, _to_float64(params), self._sequences)


class Watch(NamedTuple):
    """What is measured of a fit along its epochs.

    Attributes:
      measure: parameters -> arrays by name, such as a `Prober`.
      every: Epochs between two measurements, the first of which is before any update.
    """

    measure: Callable[[Params], Mapping[str, np.ndarray]]
    every: int = 1

    def times(self, num_epochs: int) -> np.ndarray:
        """The epochs after which there is a measurement."""
        return np.arange(0, num_epochs + 1, self.every)

    def entered(
        self, log: Mapping[str, np.ndarray], params: Params, epoch: int, num_epochs: int
    ) -> dict[str, np.ndarray]:
        """The log of (times, ...) with the measurement after an epoch, if there is one then."""
        log = {name: values.copy() for name, values in log.items()}
        if epoch % self.every == 0:
            for name, values in self.measure(params).items():
                room = (len(self.times(num_epochs)), *np.shape(values))
                log.setdefault(name, np.full(room, np.nan))[epoch // self.every] = values
        return log


def _to_float64(tree: Any) -> Any:
    """Arrays on the host, where they lose the float type they were made in."""

    def one(leaf: np.ndarray) -> np.ndarray:
        return leaf.astype(np.float64) if np.issubdtype(leaf.dtype, np.floating) else leaf

    return jax.tree.map(one, jax.device_get(tree))


@functools.cache
def _compiled(measure: Measure) -> Callable[..., Values]:
    return jax.jit(partial(_medians, measure))


def _medians(measure: Measure, params: Params, sequences: Any) -> dict[str, Array]:
    def one_run(params: Params) -> dict[str, Array]:
        values = map_runs(partial(measure, params))(sequences)
        return jax.tree.map(partial(jnp.median, axis=0), dict(values))

    return map_runs(one_run)(params)
