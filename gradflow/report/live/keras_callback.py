"""Watches the training of a Keras model, as a callback of ``model.fit``."""

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np

from gradflow.interop import load
from gradflow.interop.net import Captured
from gradflow.report.live.measure import Subject, subject_of
from gradflow.report.live.monitor import Monitor, Settings
from gradflow.report.samples import kept_steps


def keras_callback(model: Any, settings: Settings, sample: Any) -> Any:
    """Returns a callback of Keras that measures the model, after the batches that are due.

    Args:
      model: The model.
      settings: The options.
      sample: Inputs of the model, an array or arrays by the names of its inputs. By default those
        of the batch at hand, which the callback can see with the backend JAX alone.

    Returns:
      A ``keras.callbacks.Callback`` with the methods of `Monitor`: ``dataset``, ``close``.

    Raises:
      ValueError: If the model has no recurrent layer that can be imported, or a sample is missing.
    """
    keras = import_module("keras")

    load(model, verify=False)  # raises before the training, not in it
    if sample is None and keras.backend.backend() != "jax":
        raise ValueError(
            f"Expected a sample with the backend {keras.backend.backend()}, which does not show "
            "its batches to a callback. Pass sample= with a few inputs of the model."
        )

    monitor = Monitor(settings, "Keras")
    return _callback(keras, monitor, _Batches(sample, settings.num_sequences))


def _callback(keras: Any, monitor: Monitor, batches: "_Batches") -> Any:
    class Callback(keras.callbacks.Callback):
        """Calls a monitor; its class is made here because Keras is imported here."""

        def __init__(self) -> None:
            super().__init__()
            self.monitor, self.dataset, self.close = monitor, monitor.dataset, monitor.close
            self.updates = 0

        def on_train_begin(self, logs: Any = None) -> None:
            with monitor.guarded(self.updates):
                batches.attach(self.model)

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.updates += 1
            with monitor.guarded(self.updates):
                if monitor.is_due(self.updates):
                    monitor.measure(self.updates, lambda: _subjects(self.model, batches))

        def on_train_end(self, logs: Any = None) -> None:
            batches.detach()

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            self.close()

    return Callback()


def _subjects(model: Any, batches: "_Batches") -> list[Subject]:
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()  # the variables are not up to date during an epoch
    net = load(model, verify=False)
    assert net.capture is not None
    with _unchanged(model):
        captured = net.capture(batches.inputs(model))
    assert isinstance(captured, Captured)
    lengths = {name: kept_steps(name, mask) for name, mask in captured.masks.items()}
    return [
        replace(
            subject_of(one, captured[one.name], len(captured[one.name])),
            lengths=lengths.get(one.name),
        )
        for one in net.layers
        if one.name in captured
    ]


@contextlib.contextmanager
def _unchanged(model: Any) -> Iterator[None]:
    """Restores what a run of the model changes.

    Recurrent layers of Keras with dropout advance their random seeds in inference, too, and
    stateful ones keep their last state.
    """
    keras = import_module("keras")

    variables = list(model.non_trainable_variables)
    values = [np.array(keras.ops.convert_to_numpy(one)) for one in variables]
    try:
        yield
    finally:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)


class _Batches:
    """The inputs of the newest batch: given, or seen on their way to the training step."""

    def __init__(self, sample: Any, count: int) -> None:
        self._sample = sample
        self._count = count
        self._newest: Any = None
        self._model: Any = None
        self._original: Any = None

    def attach(self, model: Any) -> None:
        """Sees the batches of ``fit``, if no sample was given."""
        if self._sample is None and getattr(model.train_function, "__self__", None) is not self:
            self._model, self._original = model, model.train_function
            model.train_function = self.run

    def detach(self) -> None:
        """Restores the training step."""
        if self._model is not None:
            self._model.train_function = self._original
            self._model = None

    def run(self, state: Any, batches: Iterator[Any]) -> Any:
        """Runs the training step of the model on the batches, and keeps the first of them."""
        first = next(batches)
        self._newest = first
        return self._original(state, itertools.chain([first], batches))

    def inputs(self, model: Any) -> dict[str, np.ndarray]:
        """Returns the inputs of a few examples, by the names of the model's inputs."""
        keras = import_module("keras")

        x = self._sample
        if x is None:
            x = keras.utils.unpack_x_y_sample_weight(self._newest)[0]
        if not isinstance(x, Mapping):
            parts = list(x) if isinstance(x, list | tuple) else [x]
            names = [str(one.name) for one in getattr(model, "inputs", None) or []]
            names = names if len(names) == len(parts) else ["inputs"] * len(parts)
            x = dict(zip(names, parts, strict=True))
        return {name: np.asarray(one)[: self._count] for name, one in x.items()}
