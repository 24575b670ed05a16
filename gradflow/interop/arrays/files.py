"""Files of named arrays: NumPy's archives, safetensors, and the parameters that gradflow wrote."""

import io
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gradflow.cell import param_shapes
from gradflow.cells import resolve
from gradflow.checks import shorten
from gradflow.interop.archives import Archive, damaged, opened_archive, opened_safetensors
from gradflow.interop.arrays.nets import from_names
from gradflow.interop.loading import Options
from gradflow.interop.net import Layer, Net
from gradflow.interop.weights import METADATA, named_leaves, read_description


def read_safetensors(path: Path, options: Options) -> Net:
    """Reads the recurrent layers of a safetensors file, or the cell that gradflow wrote to it."""
    with opened_safetensors(path) as file:
        if METADATA in (file.metadata() or {}):
            return Net("gradflow", (_own_layer(path, file),))

        def get(name: str) -> np.ndarray:
            try:
                return file.get_tensor(name)
            except (TypeError, AttributeError) as error:  # a type that is neither of NumPy
                raise ValueError(
                    f"Expected floating-point numbers for {name} in {str(path)!r}, got a type that "
                    f"cannot be read ({shorten(error)}). Convert the file to float32."
                ) from None

        return from_names(list(file.keys()), get, "", options)


def read_npz(path: Path, options: Options) -> Net:
    """Reads the recurrent layers of a NumPy archive."""
    with opened_archive(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.names]
        return from_names(names, lambda name: _read_npy(path, archive, name), "", options)


def _read_npy(path: Path, archive: Archive, name: str) -> np.ndarray:
    """Reads one array. Its header is checked first: numpy.load allots what the header says."""
    content = archive.read(f"{name}.npy")
    file = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, is_fortran, dtype = read_header(file)
    except Exception as error:  # the header is parsed as Python's literals: damage raises anything
        raise damaged(path, f"the header of {shorten(name)} ({shorten(error)})") from None
    size, rest = math.prod(shape) * dtype.itemsize, len(content) - file.tell()
    if dtype.hasobject or min(shape, default=0) < 0 or size != rest:
        raise damaged(path, f"{shorten(name)} has {rest} bytes for {dtype} numbers of {shape}")
    flat = np.frombuffer(content, dtype, offset=file.tell())
    return flat.reshape(shape, order="F" if is_fortran else "C")


def _own_layer(path: Path, file: Any) -> Layer:
    """Reads the parameters of a file that gradflow wrote. They may be infinite or NaN."""
    about = read_description(path)
    try:
        cell = resolve(about.cell, allow_code=False)(about.input_size, about.hidden_size)
    except TypeError as error:  # an option of another type
        raise ValueError(
            f"Cannot make the cell {shorten(about.cell)} of {str(path)!r}. {shorten(error)}"
        ) from None
    like = param_shapes(cell)
    names = {name: leaf.shape for name, leaf in named_leaves(like, "the cell").items()}
    found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
    if names != found:
        raise ValueError(
            f"Expected arrays of the shapes {shorten(names)} for the cell {about.cell} in "
            f"{str(path)!r}, got {shorten(found)}. Write the file with "
            "gradflow.interop.save_params."
        )
    arrays = [np.asarray(file.get_tensor(name), np.float64) for name in names]
    params = jax.tree.unflatten(jax.tree.structure(like), arrays)
    return Layer("cell", *about, params, "gradflow's own", note="written by gradflow")
