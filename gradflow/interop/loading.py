"""Loads the recurrent layers of a model, from memory or from a file of any known format.

A file is data. Its format is recognised by its content, and nothing in it is ever executed: pickles
that want more than tensors, and cells that are code, are refused.
"""

import importlib
import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from gradflow.interop.net import Net, check_net
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


class Format(NamedTuple):
    """A kind of file.

    Attributes:
      module: The module of this package whose ``read_<name>`` reads it.
      extra: The extra of the package that it needs; none for what is always installed.
      words: What it is.
    """

    module: str
    extra: str
    words: str


FORMATS = {
    "safetensors": Format("named_arrays", "", "safetensors with PyTorch's or Keras's names"),
    "npz": Format("named_arrays", "", "NumPy archive with PyTorch's or Keras's names"),
    "torch": Format("torch_nets", "torch", "PyTorch state_dict (.pt, .pth)"),
    "torchscript": Format("torch_nets", "torch", "TorchScript archive"),
    "keras": Format("keras_nets", "", "Keras 3 model (.keras)"),
    "hdf5": Format("keras_nets", "", "Keras weights or model (.h5, .hdf5, .weights.h5)"),
    "onnx": Format("onnx_nets", "onnx", "ONNX graph"),
    "msgpack": Format("flax_files", "", "Flax msgpack"),
    "orbax": Format("flax_files", "", "Orbax checkpoint, a folder"),
}
"""The formats of files, each read by one function; `format_of` recognises them."""

OBJECTS = {
    "torch": ("torch_nets", "from_module"),
    "keras": ("keras_nets", "from_model"),
    "flax": ("flax_nets", "from_flax"),
    "equinox": ("equinox_nets", "from_equinox"),
    "onnx": ("onnx_nets", "from_graph"),
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
    path = user_path(model) if isinstance(model, str | os.PathLike) else None
    net = _from_memory(model, options) if path is None else _from_file(path, options)
    return check_net(_chosen(net, options))


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
    if isinstance(model, Mapping):
        return _module("flax_nets").from_tree(model, options)
    raise ValueError(
        f"Expected a path, or a model of PyTorch, Keras, Flax, Haiku, Equinox or ONNX, got "
        f"{type(model).__name__}. Save it to a file in one of these formats: {_known()}."
    )


def _module(name: str) -> Any:
    return importlib.import_module(f"gradflow.interop.{name}")


def missing(what: str, error: ModuleNotFoundError, extra: str) -> ModuleNotFoundError:
    """Returns the error for a package that reading needs and that is not installed."""
    package = (error.name or "a package").partition(".")[0]
    install = f"gradflow-rnn[{extra}]" if extra else package
    return ModuleNotFoundError(
        f"Expected the package {package} to read a {what}, but it is not installed. Install it "
        f"with: pip install '{install}'",
        name=error.name,
    )


def format_of(path: Path) -> str:
    """Returns the name in `FORMATS` of a file's or folder's format, which its content shows.

    Raises:
      ValueError: If it is none of them.
      OSError: If there is no such file.
    """
    if path.is_dir():
        if any((path / name).exists() for name in ("_METADATA", "_CHECKPOINT_METADATA")):
            return "orbax"
        raise _unknown(path, "a folder without the metadata of an Orbax checkpoint")
    if not path.is_file():
        raise FileNotFoundError(f"Expected a model at {str(path)!r}, got none. Check the path.")
    with path.open("rb") as file:
        head = file.read(16)
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return "hdf5"
    if head.startswith(b"PK"):
        return _format_of_zip(path)
    if len(head) > 8 and head[8:9] == b"{":
        return "safetensors"
    by_name = {".onnx": "onnx", ".msgpack": "msgpack", ".pt": "torch", ".pth": "torch"}
    if path.suffix in by_name:
        return by_name[path.suffix]
    if path.suffix == ".json":
        raise _unknown(path, "a configuration, which has no weights; name it with config")
    raise _unknown(path, "a file of another kind" if head else "an empty file")


def _format_of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ValueError(
            f"Expected an archive at {str(path)!r}, but it is damaged ({error}). Copy it again."
        ) from None
    if "model.weights.h5" in names:
        return "keras"
    if any(name.endswith("/data.pkl") for name in names):
        is_script = any("/code/" in name or name.endswith("/constants.pkl") for name in names)
        return "torchscript" if is_script else "torch"
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    raise _unknown(path, f"an archive of {', '.join(names[:3]) or 'nothing'}")


def _unknown(path: Path, found: str) -> ValueError:
    return ValueError(
        f"Expected a model at {str(path)!r} in one of these formats: {_known()}; got {found}. "
        "Convert it to one of these."
    )


def _known() -> str:
    return "; ".join(form.words for form in FORMATS.values())


def _chosen(net: Net, options: Options) -> Net:
    """Keeps the layers whose names begin as the options say."""
    if options.layer is None:
        return net
    names = [layer.name for layer in net.layers]
    chosen = tuple(one for one in net.layers if one.name.startswith(options.layer))
    if not chosen:
        check_name("layer", options.layer, names)
    return replace(net, layers=chosen)
