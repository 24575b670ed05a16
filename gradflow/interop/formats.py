"""The formats of files with models, recognised by their content."""

from pathlib import Path
from typing import NamedTuple

from gradflow.checks import shorten
from gradflow.interop.archives import opened_archive

TORCH_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
"""The number that stands near the beginning of files of PyTorch before 1.6."""

LARGEST_HEADER = 100_000_000
"""Largest header of a safetensors file, in bytes; the format's own limit."""


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
    "safetensors": Format("arrays.files", "", "safetensors with PyTorch's or Keras's names"),
    "npz": Format("arrays.files", "", "NumPy archive with PyTorch's or Keras's names"),
    "torch": Format("torch.files", "torch", "PyTorch state_dict (.pt, .pth)"),
    "torchscript": Format("torch.files", "", "TorchScript archive"),
    "keras": Format("keras.nets", "", "Keras 3 model (.keras)"),
    "hdf5": Format("keras.nets", "", "Keras weights or model (.h5, .hdf5, .weights.h5)"),
    "onnx": Format("onnx.nets", "onnx", "ONNX graph"),
    "msgpack": Format("flax.files", "", "Flax msgpack"),
    "orbax": Format("flax.files", "", "Orbax checkpoint, a folder"),
}
"""The formats of files, which `format_of` recognises, each read by one function.

The readers raise a ValueError for a file that is damaged, has code in it or no recurrent layer, or
contradicts the user's options, with what to do; `gradflow.load` documents the others.
"""


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
    # The first eight bytes of a safetensors file are the length of its header.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= LARGEST_HEADER:
        return "safetensors"
    if TORCH_MAGIC in head:
        return "torch"
    by_name = {".onnx": "onnx", ".msgpack": "msgpack", ".pt": "torch", ".pth": "torch"}
    if path.suffix in by_name:
        return by_name[path.suffix]
    if path.suffix == ".json":
        raise _unknown(path, "a configuration, which has no weights; name it with config")
    if head[:1] == b"\x80" and head[1:2] in b"\2\3\4\5":
        raise _unknown(path, "a pickle, which can execute code and is never loaded")
    raise _unknown(path, "a file of another kind" if head else "an empty file")


def _format_of_zip(path: Path) -> str:
    with opened_archive(path) as archive:
        names = archive.names
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
        f"Expected a model at {str(path)!r} in one of these formats: {known_formats()}; got "
        f"{shorten(found)}. Convert it to one of these."
    )


def known_formats() -> str:
    """Returns what `load` reads, for an error."""
    return "; ".join(form.words for form in FORMATS.values())
