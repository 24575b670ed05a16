"""Watches a training loop in JAX, as a function of the step, the parameters and the batch."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from gradflow.cell import Cell, Params
from gradflow.interop import Net, load
from gradflow.report.live.measure import Subject, subject_of
from gradflow.report.live.monitor import Monitor, Settings

Layers = Callable[[Any], Net | Mapping[str, tuple[Cell, Params]]]
"""Parameters -> the recurrent layers: a net, or cells with their parameters by name."""


class JaxMonitor(Monitor):
    """A monitor that the training loop calls: ``monitor(step, params, batch)``.

    Args:
      layers: Parameters -> the recurrent layers.
      settings: The options.
    """

    def __init__(self, layers: Layers, settings: Settings) -> None:
        super().__init__(settings, "JAX")
        self._layers = layers

    def __call__(self, step: int, params: Any, batch: Any) -> None:
        """Measures the update, if it is due. Never raises.

        Args:
          step: The number of the update.
          params: What the function of the layers takes.
          batch: The inputs (T, B, input) of each layer by name, or those of the first layer.
            Layers without inputs here get the outputs of those that feed them.
        """
        with self.guarded(step):
            if self.is_due(int(step)):
                self.measure(int(step), lambda: self._subjects(params, batch))

    def _subjects(self, params: Any, batch: Any) -> list[Subject]:
        found = self._layers(params)
        names = [one.name for one in found.layers] if isinstance(found, Net) else list(found)
        given = batch if isinstance(batch, Mapping) else {names[0]: batch}
        inputs = {name: self._sequences(x) for name, x in given.items()}
        if unknown := set(inputs) - set(names):
            raise ValueError(
                f"Expected inputs of the layers {', '.join(names)}, got {', '.join(unknown)}. "
                "Name them as the layers."
            )
        count = len(next(iter(inputs.values())))
        if isinstance(found, Net):
            return [subject_of(one, inputs.get(one.name), count) for one in found.layers]
        return [
            Subject(name, cell, jax.device_get(own), inputs.get(name))
            for name, (cell, own) in found.items()
        ]

    def _sequences(self, inputs: Any) -> np.ndarray:
        x = np.asarray(inputs[:, : self.settings.num_sequences])
        if x.ndim != 3:
            raise ValueError(
                f"Expected inputs of shape (T, B, input), got {np.shape(inputs)}. Add the axis "
                "that is missing."
            )
        return x.swapaxes(0, 1)


def layers_of(model: Any) -> Layers:
    """Returns the function of the layers for what `gradflow.watch` was given.

    Args:
      model: A cell; cells by name, whose parameters have the same names; `gradflow.load`, for the
        variables of Flax or the parameters of Haiku; or such a function.
    """
    if isinstance(model, Cell):
        return lambda params: {"cell": (model, params)}
    if isinstance(model, Mapping):
        return lambda params: {name: (cell, params[name]) for name, cell in model.items()}
    if model is load:
        return lambda variables: load(variables, verify=False)
    return model
