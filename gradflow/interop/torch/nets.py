"""Recurrent layers of PyTorch modules in memory."""

import copy
import re
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from gradflow.checks import shorten
from gradflow.interop.arrays.nets import from_names
from gradflow.interop.loading import Options
from gradflow.interop.net import Layer, Net, feed, to_lowest
from gradflow.interop.torch.runs import array_of, capture
from gradflow.interop.torch.scripts import from_script
from gradflow.interop.torch.state_dicts import unwrapped
from gradflow.interop.verification import (
    TOLERANCE,
    Run,
    compared,
    importable,
    largest_difference,
    noted,
)

RECURRENT = re.compile(r"(Quantized|Q)?(RNN|LSTM|GRU)(Cell|Base)?")
"""Names of classes that are recurrent; those that are not of torch.nn are not imported."""


def from_module(module: Any, options: Options) -> Net:
    """Returns the recurrent layers of a module, in the order in which they were registered.

    Every layer and direction is compared with one of `torch.nn` in float64 that has its weights,
    and every module as a whole with the chain of its layers. The module is left as it is.
    """
    torch = import_module("torch")

    if isinstance(module, torch.jit.ScriptModule):
        return from_script(module, options)
    layers: list[Layer] = []
    unsupported: dict[str, str] = {}
    sources: dict[str, Any] = {}
    for path, one in unwrapped(dict(_inner(module).named_modules())).items():
        try:
            _check_weights(one)
            if is_recurrent(one):
                net = _net_of(path, one, options)
                layers += net.layers
                unsupported |= net.unsupported
                sources |= {layer.name: one for layer in net.layers}
        except ValueError as error:
            unsupported[path or type(one).__name__] = str(error)
    if not layers and not unsupported:
        kinds = ", ".join(sorted({type(one).__name__ for one in module.modules()}))
        raise ValueError(
            "Expected a module with RNN, LSTM, GRU, RNNCell, LSTMCell or GRUCell of torch.nn, got "
            f"modules of {shorten(kinds)}. Write a recurrence of your own as a gradflow cell."
        )
    return importable(
        Net("PyTorch", tuple(layers), unsupported, partial(capture, module, layers, sources))
    )


def _inner(module: Any) -> Any:
    """The module in wrappers such as DataParallel and torch.compile."""
    while type(module).__module__.startswith(("torch.nn.parallel", "torch._dynamo")):
        module = getattr(module, "module", None) or module._orig_mod
    return module


def _check_weights(module: Any) -> None:
    """Refuses recurrent modules whose weights or code are not those of `torch.nn`."""
    torch = import_module("torch")

    name = getattr(module, "original_name", type(module).__name__)
    if not RECURRENT.fullmatch(name):
        return
    if isinstance(module, torch.jit.ScriptModule):
        raise ValueError(
            f"Expected a module of torch.nn, got {name} compiled to TorchScript inside of another "
            "module. Load the original module, or this one by itself."
        )
    if type(module).__module__.startswith(("torch.ao.", "torch.nn.quant", "torch.nn.intrinsic")):
        raise ValueError(
            f"Expected floating-point weights, got a quantised {name}. Load the original model."
        )


def is_recurrent(module: Any) -> bool:
    """Whether a module is one of the recurrent modules and cells of `torch.nn`."""
    torch = import_module("torch")

    return isinstance(module, torch.nn.RNNBase | torch.nn.RNNCellBase)


def _net_of(path: str, module: Any, options: Options) -> Net:
    """The layers of one module, compared with those of torch.nn and with the module itself."""
    torch = import_module("torch")

    is_cell = isinstance(module, torch.nn.RNNCellBase)
    mode = "" if is_cell else module.mode
    activation = getattr(module, "nonlinearity", mode.removeprefix("RNN_").lower())
    arrays = {
        f"{path}.{name}".removeprefix("."): array_of(getattr(module, name))
        for name in _weight_names(module, is_cell)
    }
    read = partial(from_names, list(arrays), arrays.__getitem__, "PyTorch")
    net = read(Options(activation=activation, verify=False))
    if not options.verify:
        return net
    try:
        original = _original(module)
    except (RuntimeError, TypeError) as error:
        # The older weight_norm keeps a computed tensor, which PyTorch does not copy.
        net = read(Options(activation=activation))
        why = f"compared with its weights alone, for it cannot be copied ({shorten(error)[:80]})"
        return replace(net, layers=tuple(noted(layer, why) for layer in net.layers))
    if len(net.layers) == 1:
        return replace(net, layers=(compared(net.layers[0], original),))
    net = read(Options(activation=activation))
    _check_whole(path or type(module).__name__, net, original)
    return net


def _check_whole(name: str, net: Net, original: Run) -> None:
    """Compares the chain of all layers with the module, to verify what feeds what."""
    inputs = np.random.default_rng(0).normal(size=(2, 7, net.layers[0].input_size))
    given, expected = feed(net, to_lowest(net, inputs)), original(inputs)
    fed_by = {below for layer in net.layers for below in layer.fed_by}
    last = [layer for layer in net.layers if layer.name not in fed_by]
    found = np.concatenate([layer.run(given[layer.name]) for layer in last], axis=-1)
    if found.shape != expected.shape or not largest_difference(found, expected) <= TOLERANCE:
        raise ValueError(
            f"Expected the outputs of {name}, but the chain of its layers gives others. Its class "
            "computes another function than those of torch.nn: write it as a gradflow cell."
        )


def _weight_names(module: Any, is_cell: bool) -> list[str]:
    """The names of the weights, also of those that a parametrisation computes."""
    roles = ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if module.bias else [])]
    if is_cell:
        return roles
    roles += ["weight_hr"] if module.proj_size else []
    ends = ["", "_reverse"] if module.bidirectional else [""]
    return [f"{role}_l{k}{end}" for k in range(module.num_layers) for end in ends for role in roles]


def _original(module: Any) -> Run:
    """Returns a function that runs a copy of a module in float64 on inputs (N, T, input)."""
    copied = copy.deepcopy(module).cpu().double().eval()

    def run(inputs: np.ndarray) -> np.ndarray:
        torch = import_module("torch")

        x = torch.from_numpy(np.asarray(inputs, np.float64))
        # forward() itself, so that the hooks of the user do not see these inputs.
        with torch.no_grad():
            if not isinstance(module, torch.nn.RNNCellBase):
                outputs = copied.forward(x if copied.batch_first else x.swapaxes(0, 1))[0]
                return (outputs if copied.batch_first else outputs.swapaxes(0, 1)).numpy()
            state, outputs = None, []
            for step in range(x.shape[1]):
                state = copied.forward(x[:, step], state)
                outputs.append(state[0] if isinstance(state, tuple) else state)
            return torch.stack(outputs, 1).numpy()

    return run
