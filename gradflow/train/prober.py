"""Measures the models of runs during a training, on the same sequences every time."""

import functools
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gradflow.cell import Params
from gradflow.devices import map_runs
from gradflow.numerics.precision import computing_in, to_precision

Values = Mapping[str, Array]
"""Arrays by name."""

Measure = Callable[[Params, Any], Values]


class Prober:
    """Measures the models of runs in float64, and returns medians over sequences.

    Args:
      measure: (parameters of one run, one sequence) -> arrays by name. It is compiled once for
        all probers with an equal one, and so should be hashable by value.
      sequences: A pytree of arrays with a leading axis of sequences.
    """

    def __init__(self, measure: Measure, sequences: Any) -> None:
        self._measure = measure
        self._sequences = to_precision(sequences, "float64")

    def __call__(self, params: Params) -> dict[str, np.ndarray]:
        """Measures parameters with a leading axis of runs: arrays by name, (runs, ...)."""
        with computing_in("float64"):
            compiled = _compiled(self._measure)
            return jax.device_get(compiled(to_precision(params, "float64"), self._sequences))


@functools.cache
def _compiled(measure: Measure) -> Callable[..., Values]:
    return jax.jit(partial(_medians, measure))


def _medians(measure: Measure, params: Params, sequences: Any) -> dict[str, Array]:
    def one_run(params: Params) -> dict[str, Array]:
        values = map_runs(partial(measure, params))(sequences)
        return jax.tree.map(partial(jnp.median, axis=0), dict(values))

    return map_runs(one_run)(params)
