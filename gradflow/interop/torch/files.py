"""State_dicts of PyTorch and TorchScript archives, read without executing anything in them."""

import io
import pickletools
import re
import warnings
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from gradflow.checks import shorten
from gradflow.interop.archives import Archive, Budget, damaged, opened_archive
from gradflow.interop.arrays.nets import from_names
from gradflow.interop.formats import TORCH_MAGIC
from gradflow.interop.loading import Options
from gradflow.interop.net import Net
from gradflow.interop.torch.pickles import Tensor, parse
from gradflow.interop.torch.state_dicts import leaves_of, state_dict_of, unwrapped

NUM_PICKLES = 5
"""How many pickles a file of PyTorch before 1.6 begins with."""

NOT_RUN = (
    "a TorchScript file is a program, which is not run; if you trust it, load it in Python: "
    "gradflow.report.diagnose(torch.jit.load(path), sample=...)"
)
"""Why there are no captured inputs, and how to get them."""


def read_torch(path: Path, options: Options) -> Net:
    """Reads the recurrent layers of a state_dict, alone or anywhere in a checkpoint."""
    tensors, budget = state_dict_of(_load(path)), Budget(path)

    def get(name: str) -> np.ndarray:
        return budget.spend(_numbers(path, name, tensors[name]))

    return from_names(list(tensors), get, "PyTorch", options)


def read_torchscript(path: Path, options: Options) -> Net:
    """Reads the recurrent layers of a TorchScript archive. PyTorch is not needed for it.

    `torch.jit.load` would compile the code in the archive. Here its pickle is read as data, by
    `gradflow.interop.torch.pickles`, and an RNN's activation is looked up in the text of the code.
    """
    with opened_archive(path) as archive:
        pickled = next(name for name in archive.names if name.endswith("/data.pkl"))
        root = pickled.removesuffix("data.pkl")
        try:
            module = parse(archive.read(pickled))
        except ValueError as error:
            raise damaged(path, shorten(error)) from None
        tensors = {".".join(way): tensor for way, tensor in leaves_of(module, Tensor)}
        storages: dict[str, bytes] = {}
        budget = Budget(path)

        def get(name: str) -> np.ndarray:
            tensor = tensors[name]
            try:
                key = f"{root}data/{tensor.storage}"
                if key not in storages:
                    storages[key] = archive.read(key)
                return budget.spend(tensor.view(storages[key]))
            except ValueError as error:
                raise damaged(path, f"{shorten(name)}, {shorten(error)}") from None

        options = options._replace(activation=options.activation or _activation(archive))
        return replace(from_names(list(tensors), get, "PyTorch", options), note=NOT_RUN)


def _activation(archive: Archive) -> str | None:
    """The activation of the RNNs, if the code of the archive has only one."""
    found = set()
    for name in archive.names:
        if "/code/" in name and name.endswith(".py"):
            found |= set(re.findall(rb"\brnn_(tanh|relu)(?:_cell)?\(", archive.read(name)))
    return found.pop().decode() if len(found) == 1 else None


def _numbers(path: Path | str, name: str, tensor: Any) -> np.ndarray:
    """Returns a tensor as an array, in float64 if it has floating-point numbers."""
    torch = import_module("torch")

    try:
        stored = tensor.untyped_storage().nbytes()
        if tensor.layout != torch.strided or tensor.numel() * tensor.element_size() > stored:
            raise ValueError(f"a tensor of shape {tuple(tensor.shape)} in {stored} bytes")
        tensor = tensor.detach().cpu()
        return (tensor.double() if tensor.is_floating_point() else tensor).numpy()
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        raise ValueError(
            f"Expected dense numbers for {shorten(name)} in {str(path)!r}, got "
            f"{shorten(error)[:150]}. Save the network before quantisation."
        ) from None


def from_state_dict(state_dict: Mapping[str, Any], options: Options) -> Net:
    """Returns the recurrent layers of a state_dict in memory, or of arrays with names."""
    tensors = unwrapped(state_dict)

    def get(name: str) -> np.ndarray:
        value = tensors[name]
        is_torch = type(value).__module__.partition(".")[0] == "torch"
        return _numbers("memory", name, value) if is_torch else np.asarray(value)

    return from_names(list(tensors), get, "", options)


def _load(path: Path) -> Any:
    torch = import_module("torch")

    with path.open("rb") as file:
        head = file.read(16)
    if head.startswith(b"PK"):
        with opened_archive(path) as archive:
            pickles = []
            for name in archive.names:  # checks sizes and checksums, which PyTorch does not
                content = archive.read(name)
                pickles += [content] if name.endswith("/data.pkl") else []
        _check_pickles(path, b"".join(pickles), len(pickles))
    elif TORCH_MAGIC not in head:
        raise _refused(path, ValueError("neither an archive nor PyTorch's older format"))
    else:
        _check_pickles(path, path.read_bytes(), NUM_PICKLES)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # A file of PyTorch is a pickle: without weights_only, it would execute code.
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes raise anything in there
        raise _refused(path, error) from None


def _check_pickles(path: Path, data: bytes, count: int) -> None:
    """Refuses byte arrays, which ``weights_only`` allots in any size that a pickle asks for."""
    file = io.BytesIO(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in a damaged text
            for _ in range(count):
                for _, argument, _ in pickletools.genops(file):
                    if isinstance(argument, str) and argument.split(" ")[-1] == "bytearray":
                        raise ValueError("GLOBAL builtins.bytearray")
    except (ValueError, LookupError, ArithmeticError) as error:
        raise _refused(path, error) from None


def _refused(path: Path, error: Exception) -> ValueError:
    text = str(error)
    if wanted := re.search(r"GLOBAL ([\w.]+)|[Cc]annot use ``?([\w.]+)", text):
        return ValueError(
            f"Expected tensors alone in {str(path)!r}, but its pickle also wants to execute "
            f"{wanted[1] or wanted[2]}, which is refused. Save the parameters alone, with "
            "torch.save(model.state_dict(), path)."
        )
    first = shorten(text.partition("\n")[0])[:150]
    return ValueError(
        f"Expected a state_dict of PyTorch at {str(path)!r}, but it cannot be read "
        f"({type(error).__name__}: {first}). Save it again with torch.save(model.state_dict(), "
        "path)."
    )
