"""Loads the recurrent layers of a model, from memory or from a file of any known format.

A file is data. Its format is recognised by its content, and nothing in it is ever executed: pickles
that want more than tensors, and cells that are code, are refused.
"""

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from gradflow.interop.arrays.names import find_groups
from gradflow.interop.formats import FORMATS, format_of, known_formats
from gradflow.interop.net import Net
from gradflow.interop.verification import checked
from gradflow.paths import user_path
from gradflow.spec import check_name


class Options(NamedTuple):
    """What a user says about a model where the model does not say it itself.

    Attributes:
      layer: Beginning of the names of the layers to import.
      convention: The framework whose layout the arrays have, where several fit.
      activation: The activation of an RNN, where the file does not have it.
      config: Path of the model's configuration, where it is another file.
      verify: Whether the outputs are compared with the original's.
    """

    layer: str | None = None
    convention: str | None = None
    activation: str | None = None
    config: str | None = None
    verify: bool = True


CONVENTIONS = ("torch", "keras", "flax", "haiku")
"""The frameworks whose layout nameless arrays can have."""

ACTIVATIONS = ("tanh", "relu")
"""The activations of an RNN whose file does not have it."""

OBJECTS = {
    "torch": ("torch.nets", "from_module"),
    "keras": ("keras.nets", "from_model"),
    "flax": ("flax.nets", "from_flax"),
    "equinox": ("flax.equinox", "from_equinox"),
    "onnx": ("onnx.nets", "from_graph"),
}
"""The module and the function for an object in memory, by the package of one of its classes."""


def load(
    model: Any,
    *,
    layer: str | None = None,
    convention: str | None = None,
    activation: str | None = None,
    config: str | None = None,
    verify: bool = True,
) -> Net:
    """Loads the recurrent layers of a model::

        net = gradflow.load("model.safetensors")
        net = gradflow.load(torch_module)
        layer = net["encoder.l0"]
        gradflow.measure(layer.cell, layer.params, inputs)

    Args:
      model: The path of a file or folder in one of `FORMATS`; or, in memory, a PyTorch module, a
        Keras model, a Flax NNX module, variables of Flax Linen or parameters of Haiku (nested
        dictionaries), an Equinox module, or an ONNX model.
      layer: Beginning of the names of the layers to import; by default all.
      convention: The framework whose layout nameless arrays have, where several fit: ``torch``,
        ``keras``, ``flax`` or ``haiku``.
      activation: ``tanh`` or ``relu``, for an RNN whose file does not have it.
      config: Path of the model's configuration, for Keras weights without one.
      verify: Whether the outputs of each layer are compared with those of the original, where its
        framework is installed.

    Raises:
      ValueError: If the file is none of these, is damaged, has no recurrent layer, has code in it,
        or leaves open what has to be known; the message says what to give.
      ModuleNotFoundError: If a package is missing, with the command that installs it.
      OSError: If there is no such file.
    """
    options = Options(layer, convention, activation, config, verify)
    if convention is not None:
        check_name("convention", convention, CONVENTIONS)
    if activation is not None:
        check_name("activation", activation, ACTIVATIONS)
    path = user_path(model) if isinstance(model, str | os.PathLike) else None
    net = _from_memory(model, options) if path is None else _from_file(path, options)
    return checked(_chosen(net, options))


def _from_file(path: Path, options: Options) -> Net:
    name = format_of(path)
    form = FORMATS[name]
    read: Callable[[Path, Options], Net] = getattr(_module(form.module), f"read_{name}")
    try:
        return replace(read(path, options), path=str(path))
    except ModuleNotFoundError as error:
        raise missing(form.words, error, form.extra) from None


def _from_memory(model: Any, options: Options) -> Net:
    packages = {base.__module__.partition(".")[0] for base in type(model).__mro__}
    for package, (module, function) in OBJECTS.items():
        if package in packages:
            return getattr(_module(module), function)(model, options)
    if isinstance(model, Mapping) and find_groups(name for name in model if isinstance(name, str)):
        return _module("torch.files").from_state_dict(model, options)
    if isinstance(model, Mapping):
        return _module("flax.nets").from_tree(model, options)
    raise ValueError(
        f"Expected a path, or a model of PyTorch, Keras, Flax, Haiku, Equinox or ONNX, got "
        f"{type(model).__name__}. Save it to a file in one of these formats: {known_formats()}."
    )


def _module(name: str) -> Any:
    return importlib.import_module(f"gradflow.interop.{name}")


def missing(what: str, error: ModuleNotFoundError, extra: str) -> ModuleNotFoundError:
    """Returns the error for a package that reading needs and that is not installed."""
    package = (error.name or "a package").partition(".")[0]
    install = f"gradflow-rnn[{extra}]" if extra else package
    return ModuleNotFoundError(
        f"Expected the package {package} to read this model ({what}), but it is not installed. "
        f"Install it with: pip install '{install}'",
        name=error.name,
    )


def _chosen(net: Net, options: Options) -> Net:
    """Keeps the layers whose names begin as the options say."""
    prefix = options.layer
    if prefix is None:
        return net
    layers = {one.name: one for one in net.layers if one.name.startswith(prefix)}
    unsupported = {name: why for name, why in net.unsupported.items() if name.startswith(prefix)}
    if not layers and unsupported:
        name, why = next(iter(unsupported.items()))
        raise ValueError(f"Expected a layer that can be imported, got {name}: {why}")
    if not layers:
        check_name("layer", prefix, [layer.name for layer in net.layers])
    # What feeds a layer and was not chosen cannot be computed: its inputs have to be given.
    kept = tuple(
        layer if set(layer.fed_by) <= set(layers) else replace(layer, fed_by=())
        for layer in layers.values()
    )
    return replace(net, layers=kept, unsupported=unsupported)


def check_convention(options: Options, what: str, *known: str) -> None:
    """Checks that the user names no other convention than those of a kind of file.

    Raises:
      ValueError: If it is another one.
    """
    if options.convention is not None and options.convention not in known:
        raise ValueError(
            f"Expected no convention but {' or '.join(known)} for {what}, got "
            f"{options.convention}. Remove the convention: the file has its own."
        )


def wanted(found: Sequence[Any], options: Options) -> Sequence[Any]:
    """Returns what has a name that begins as the user says; all, if nothing has."""
    return [one for one in found if one.name.startswith(options.layer or "")] or found
