"""Recurrent layers of PyTorch modules in memory."""

import copy
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from gradflow.checks import shorten
from gradflow.interop.arrays.nets import from_arrays, importable
from gradflow.interop.feeding import feed, to_lowest
from gradflow.interop.loading import Options
from gradflow.interop.net import TOLERANCE, Layer, Net, compared, largest_difference
from gradflow.interop.torch.capture import capture
from gradflow.interop.torch.state_dicts import unwrapped

RECURRENT = re.compile(r"(Quantized|Q)?(RNN|LSTM|GRU)(Cell|Base)?")
"""Names of classes that are recurrent; those that are not of torch.nn are not imported."""


def from_module(module: Any, options: Options) -> Net:
    """Returns the recurrent layers of a module, in the order in which they were registered.

    Every layer and direction is compared with one of `torch.nn` in float64 that has its weights,
    and every module as a whole with the chain of its layers. The module is left as it is.

    Args:
      module: A module that is RNN, LSTM, GRU, RNNCell, LSTMCell or GRUCell, or has such modules.
      options: What the user says about it.

    Raises:
      ValueError: If it has no such module, or none that can be imported; the message has the
        reasons.
    """
    layers: list[Layer] = []
    unsupported: dict[str, str] = {}
    sources: dict[str, Any] = {}
    for path, one in unwrapped(dict(_inner(module).named_modules())).items():
        reason = _reason_against(one)
        try:
            if reason:
                raise ValueError(reason)
            if _is_recurrent(one):
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


def _reason_against(module: Any) -> str:
    """Why a recurrent module cannot be imported; "" if it can be, or is not recurrent."""
    torch = import_module("torch")

    name = getattr(module, "original_name", type(module).__name__)
    if not RECURRENT.fullmatch(name):
        return ""
    if isinstance(module, torch.jit.ScriptModule):
        return (
            f"Expected a module of torch.nn, got {name} compiled to TorchScript. Load the original "
            "module, or save this one with torch.jit.save and load the file."
        )
    if type(module).__module__.startswith(("torch.ao.", "torch.nn.quant", "torch.nn.intrinsic")):
        return f"Expected floating-point weights, got a quantised {name}. Load the original model."
    return ""


def _is_recurrent(module: Any) -> bool:
    torch = import_module("torch")

    return isinstance(module, torch.nn.RNNBase | torch.nn.RNNCellBase)


def _net_of(path: str, module: Any, options: Options) -> Net:
    """The layers of one module, compared with those of torch.nn and with the module itself."""
    torch = import_module("torch")

    is_cell = isinstance(module, torch.nn.RNNCellBase)
    mode = "" if is_cell else module.mode
    activation = getattr(module, "nonlinearity", mode.removeprefix("RNN_").lower())
    arrays = {
        f"{path}.{name}".removeprefix("."): _array(getattr(module, name))
        for name in _weight_names(module, is_cell)
    }
    net = from_arrays(arrays, "PyTorch", Options(activation=activation, verify=False))
    if not options.verify:
        return net
    try:
        original = _original(module, is_cell)
    except (RuntimeError, TypeError) as error:
        # The older weight_norm keeps a computed tensor, which PyTorch does not copy.
        net = from_arrays(arrays, "PyTorch", Options(activation=activation))
        why = f"compared with its weights alone, for it cannot be copied ({shorten(error)[:80]})"
        return replace(net, layers=tuple(replace(layer, note=why) for layer in net.layers))
    if len(net.layers) == 1:
        return replace(net, layers=(compared(net.layers[0], original),))
    net = from_arrays(arrays, "PyTorch", Options(activation=activation))
    _check_whole(path or type(module).__name__, net, original)
    return net


def _check_whole(name: str, net: Net, original: Callable[[np.ndarray], np.ndarray]) -> None:
    """Compares the chain of all layers with the module, to verify what feeds what."""
    inputs = np.random.default_rng(0).normal(size=(2, 7, net.layers[0].input_size))
    given, expected = feed(net, to_lowest(net, inputs)), original(inputs)
    last = [one for one in net.layers if not any(one.name in other.fed_by for other in net.layers)]
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


def _array(tensor: Any) -> np.ndarray:
    return tensor.detach().cpu().double().numpy()


def _original(module: Any, is_cell: bool) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function that runs a copy of a module in float64 on inputs (N, T, input)."""
    torch = import_module("torch")

    copied = copy.deepcopy(module).cpu().double().eval()

    def run(inputs: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(np.asarray(inputs, np.float64))
        # forward() itself, so that the hooks of the user do not see these inputs.
        with torch.no_grad():
            if not is_cell:
                outputs = copied.forward(x if copied.batch_first else x.swapaxes(0, 1))[0]
                return (outputs if copied.batch_first else outputs.swapaxes(0, 1)).numpy()
            state, outputs = None, []
            for step in range(x.shape[1]):
                state = copied.forward(x[:, step], state)
                outputs.append(state[0] if isinstance(state, tuple) else state)
            return torch.stack(outputs, 1).numpy()

    return run
