"""Watches the training of a PyTorch module, by hooks on its recurrent modules."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from gradflow.cells.lstm import LSTMCarry
from gradflow.interop import Layer, load
from gradflow.interop.torch.nets import is_recurrent
from gradflow.interop.torch.runs import Call, call_of
from gradflow.report.live.measure import Subject, subject_of
from gradflow.report.live.monitor import Monitor, Settings


class TorchMonitor(Monitor):
    """A monitor of a PyTorch module.

    An update is a forward pass in training mode that a backward pass follows; it is measured within
    the backward pass, before the optimiser changes the parameters. The hooks change no tensor.

    Args:
      module: The module.
      settings: The options.

    Raises:
      ValueError: If it has no recurrent module that can be imported.
    """

    def __init__(self, module: Any, settings: Settings) -> None:
        load(module, verify=False)  # raises before the training, not in it
        super().__init__(settings, "PyTorch")
        self.updates = 0
        self._module = module
        sources = {name: one for name, one in module.named_modules() if is_recurrent(one)}
        self._calls: dict[str, list[Call]] = {}
        self._pass = 0
        self._is_measured, self._was_backward = False, True
        safe = self._safe
        self._handles = [module.register_forward_pre_hook(safe(self._begin))]
        for name, one in sources.items():
            before = safe(partial(self._before, name))
            self._handles.append(one.register_forward_pre_hook(before, with_kwargs=True))
            self._handles.append(one.register_forward_hook(safe(self._after)))

    def close(self) -> None:
        """Removes the hooks."""
        for handle in self._handles:
            handle.remove()
        super().close()

    def _safe(self, hook: Callable[..., None]) -> Callable[..., None]:
        """Returns a hook that changes nothing, neither by its result nor by an exception."""

        def call(*args: Any, **kwargs: Any) -> None:
            with self.guarded(self.updates + 1):
                hook(*args, **kwargs)

        return call

    def _begin(self, module: Any, *_: Any) -> None:
        if _is_training(module):
            self._calls, self._was_backward = {}, False
            self._pass += 1
            self._is_measured = self.is_due(self.updates + 1)

    def _before(self, name: str, module: Any, args: tuple, kwargs: Mapping[str, Any]) -> None:
        if not _is_training(module):
            return
        if self._was_backward:  # the recurrent modules are called without the module around them
            self._begin(module)
        if self._is_measured:
            call = call_of(module, args, kwargs, self.settings.num_sequences)
            is_cell = call.inputs.shape[1] == 1 and not hasattr(module, "num_layers")
            continues = is_cell and not call.is_start
            self._calls[name] = [*(self._calls.get(name, []) if continues else []), call]

    def _after(self, module: Any, _: tuple, output: Any) -> None:
        if _is_training(module):
            # A loss may use the outputs alone or the last state alone.
            for tensor in _tensors(output):
                if tensor.requires_grad:
                    tensor.register_hook(self._safe(partial(self._backward, self._pass)))

    def _backward(self, number: int, gradient: Any) -> None:
        if number != self._pass or self._was_backward:
            return
        self._was_backward = True
        self.updates += 1
        if self._is_measured:
            self.measure(self.updates, self._subjects)
            self._calls = {}

    def _subjects(self) -> list[Subject]:
        net = load(self._module, verify=False)
        found = []
        for name, calls in self._calls.items():
            beginning = f"{name}." if name else ""
            own = [one for one in net.layers if one.name == name or one.name.startswith(beginning)]
            found += [_subject(one, place, calls) for place, one in enumerate(own)]
        return found


def _tensors(output: Any) -> Iterator[Any]:
    """Yields the tensors of a result of a recurrent module, of packed sequences too."""
    if isinstance(output, tuple):
        for part in output:
            yield from _tensors(part)
    elif output is not None:
        yield output


def _is_training(module: Any) -> bool:
    torch = import_module("torch")

    return module.training and torch.is_grad_enabled()


def _subject(layer: Layer, place: int, calls: Sequence[Call]) -> Subject:
    """Returns a layer of a module, which is at this place of its layers and directions."""
    first = calls[0]
    inputs = None if layer.fed_by else np.concatenate([call.inputs for call in calls], axis=1)
    subject = subject_of(layer, inputs, len(first.inputs))
    if len(first.lengths) and np.any(first.lengths != first.inputs.shape[1]):
        subject = replace(subject, lengths=first.lengths)
    own = [state[place] for state in first.states]
    if any(map(np.any, own)):
        subject = replace(subject, carry=LSTMCarry(*own) if len(own) > 1 else own[0])
    return subject
