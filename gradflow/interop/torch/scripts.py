"""Recurrent layers of TorchScript modules in memory.

A compiled module calls no hooks of Python. The inputs of its recurrent layers are observed one
level below, in PyTorch's own operators, where the weights of a call tell which layer it is.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from gradflow.interop.arrays.names import find_groups
from gradflow.interop.arrays.nets import from_names
from gradflow.interop.loading import Options
from gradflow.interop.net import Layer, Net
from gradflow.interop.torch.runs import (
    Call,
    array_of,
    evaluating,
    inputs_of_layers,
    run_on_sample,
)
from gradflow.interop.torch.state_dicts import unwrapped

SEQUENCES = ("lstm", "gru", "rnn_tanh", "rnn_relu")
"""Operators over whole sequences: (inputs, states, weights, ..., batch_first)."""

CELLS = ("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
"""Operators of one step: (inputs, states, W_x, W_h, b_x, b_h)."""


def from_script(module: Any, options: Options) -> Net:
    """Returns the recurrent layers of a TorchScript module, by the names of its parameters."""
    tensors = unwrapped(dict(module.state_dict()))
    known = set(re.findall(r"\baten::rnn_(tanh|relu)", str(getattr(module, "inlined_graph", ""))))
    activation = options.activation or (known.pop() if len(known) == 1 else None)

    def get(name: str) -> np.ndarray:
        return array_of(tensors[name])

    net = from_names(list(tensors), get, "PyTorch", options._replace(activation=activation))
    names = {tensors[g.roles["W_x"]].data_ptr(): g.name for g in find_groups(tensors)}
    return replace(net, capture=partial(_capture, module, net.layers, names))


def _capture(
    module: Any, layers: Sequence[Layer], names: Mapping[int, str], sample: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Runs a module as `gradflow.interop.torch.runs.capture` does, whose notes hold here too.

    A layer that the module calls on packed sequences is missing in the result.

    Args:
      module: The module.
      layers: Its layers.
      names: The name of the layer for the address of each W_x.
      sample: The arguments of the module.

    Raises:
      ValueError: If the module cannot be called, or fails on the sample.
    """
    if not hasattr(module, "forward"):
        raise ValueError(
            f"Expected a TorchScript module that can be called, got {module.original_name}, whose "
            "forward has several forms. Compile a module that calls it."
        )
    calls: dict[tuple[str, ...], list[Call]] = {}

    def record(x: Any, states: Any, weights: Sequence[Any], is_cell: bool, *rest: Any) -> None:
        own = tuple(names[w.data_ptr()] for w in weights if w.data_ptr() in names)
        if own:
            calls.setdefault(own, []).append(_call(x, states, is_cell, *rest))

    with evaluating(module), _observed(module, record):
        run_on_sample(module, sample, [one.name for one in module.forward.schema.arguments[1:]])
    found: dict[str, np.ndarray] = {}
    for own, made in calls.items():
        found |= inputs_of_layers([layer for layer in layers if layer.name in own], made)
    return found


def _call(x: Any, states: Any, is_cell: bool, is_batch_first: bool = True) -> Call:
    """Returns what an operator is called with, copied."""
    states = tuple(states) if isinstance(states, list | tuple) else (states,)
    inputs = array_of(x[:, None] if is_cell else x if is_batch_first else x.swapaxes(0, 1))
    starts = tuple(array_of(state[None] if is_cell else state) for state in states)
    lengths = np.full(len(inputs), inputs.shape[1])
    return Call(inputs, lengths, starts, not any(map(np.any, starts)))


@contextlib.contextmanager
def _observed(module: Any, record: Any) -> Iterator[None]:
    """Calls ``record`` before each recurrent operator that runs while the context is open.

    An operator of these is a composition of others, and has no kernel of a device. The one that is
    registered here records its arguments and computes the composition.
    """
    torch = import_module("torch")

    def observe(operator: Any, is_cell: bool) -> Any:
        def kernel(x: Any, states: Any, *args: Any) -> Any:
            weights, rest = (args[:1], ()) if is_cell else (args[0], args[-1:])
            record(x, states, weights, is_cell, *rest)
            return operator.decompose(x, states, *args)

        return kernel

    device = next(iter(module.state_dict().values())).device.type.upper()
    library = torch.library.Library("aten", "IMPL")
    try:
        for name in SEQUENCES:
            operator = getattr(torch.ops.aten, name).input
            library.impl(f"{name}.input", observe(operator, False), device)
        for name in CELLS:
            library.impl(name, observe(getattr(torch.ops.aten, name).default, True), device)
        yield
    finally:
        del library  # which removes what was registered
