"""Parameters of a cell in a safetensors file, which other frameworks read as well.

A file has one array for each leaf, named by its path in the parameters, such as ``f.W_h``, or
``1.f.W_h`` in a stack. The metadata has the cell and its sizes as JSON, under ``gradflow``.

Source: the format, https://huggingface.co/docs/safetensors.
"""

import contextlib
import functools
import hashlib
import json
import math
import os
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save

from gradflow.cell import Params, param_shapes
from gradflow.cells import resolve
from gradflow.checks import check_sizes, shorten
from gradflow.interop.archives import opened_safetensors
from gradflow.paths import user_path, write_bytes

_KINDS = {"BOOL": "b", "C64": "c", "F16": "f", "F32": "f", "F64": "f"} | {
    f"{sign}{bits}": kind for sign, kind in (("I", "i"), ("U", "u")) for bits in (8, 16, 32, 64)
}
"""NumPy's kind of each type that it can read."""

METADATA = "gradflow"
"""The only key of the metadata: the format does not fix the order of several keys."""

SHA256 = "sha256"
"""The key of the digest in the JSON; files that others wrote have none and are not verified."""


class Description(NamedTuple):
    """The cell to which the parameters of a file belong.

    Attributes:
      cell: The cell's spec, as `gradflow.cells.resolve` takes it.
      input_size: Size of its inputs.
      hidden_size: Size of its hidden state.
    """

    cell: str
    input_size: int
    hidden_size: int


def save_params(
    path: str | os.PathLike[str], params: Params, *, cell: str, input_size: int, hidden_size: int
) -> None:
    """Writes the parameters of a cell to a file. An interrupted write leaves no partial file.

    Args:
      path: Path of the file. Missing folders are created.
      params: The cell's parameters.
      cell: The cell's spec, such as ``lstm(forget_bias=2)``.
      input_size: Size of its inputs.
      hidden_size: Size of its hidden state.

    Raises:
      ValueError: If there is no such cell, the parameters do not have its names and shapes, or two
        leaves have the same name.
    """
    place = f"the parameters of {cell!r}"
    given = named_leaves(params, place)
    like = named_leaves(param_shapes(resolve(cell)(input_size, hidden_size)), place)
    shapes = {name: np.shape(leaf) for name, leaf in given.items()}
    _check_shapes({name: leaf.shape for name, leaf in like.items()}, shapes, place)
    arrays = {name: np.ascontiguousarray(leaf) for name, leaf in given.items()}
    description = Description(cell, input_size, hidden_size)._asdict()
    about = {**description, SHA256: _digest(description, arrays)}
    write_bytes(user_path(path), save(arrays, {METADATA: json.dumps(about)}))


def read_params(path: str | os.PathLike[str], like: Params) -> Params:
    """Reads parameters from a file into the structure and float types of ``like``.

    Args:
      path: Path of the file.
      like: Parameters of the cell, or their shapes as `gradflow.cell.param_shapes` returns them.

    Raises:
      ValueError: If it is not a safetensors file, its names and shapes are not those of ``like``
        (the message lists both), a number is not finite or of another kind, such as complex, or
        the digest that the file has is not that of its content.
      OSError: If there is no such file.
    """
    expected = named_leaves(like, "the cell")
    with opened_safetensors(path) as file:
        found = {name: file.get_slice(name) for name in file.keys()}
        shapes = {name: leaf.shape for name, leaf in expected.items()}
        sizes = {name: tuple(array.get_shape()) for name, array in found.items()}
        _check_shapes(shapes, sizes, str(path))
        for name, leaf in expected.items():
            stored = found[name].get_dtype()
            if _KINDS.get(stored) != np.dtype(leaf.dtype).kind:
                raise ValueError(
                    f"Expected numbers of the kind {leaf.dtype} for {name} in {str(path)!r}, got "
                    f"the type {stored}. Convert the file to {leaf.dtype}."
                )
        _check_digest(file, path)
        arrays = {name: file.get_tensor(name) for name in expected}
    with np.errstate(over="ignore"):  # an overflow becomes an inf, which is reported below
        leaves = [arrays[name].astype(leaf.dtype) for name, leaf in expected.items()]
    for name, leaf in zip(expected, leaves, strict=True):
        if not np.isfinite(leaf).all():
            raise ValueError(
                f"Expected finite numbers for {name} in {str(path)!r}, got NaN or an infinity in "
                f"{leaf.dtype}. Use parameters from before the training diverged."
            )
    return jax.tree.unflatten(jax.tree.structure(like), map(jnp.asarray, leaves))


def read_description(path: str | os.PathLike[str], *, trusted: Collection[str] = ()) -> Description:
    """Reads the cell to which the parameters of a file belong.

    A file can name any cell. One that is code, in a file or in a module, is accepted only if it is
    trusted: otherwise whoever wrote the file would decide what is executed here.

    Args:
      path: Path of the file.
      trusted: The specs of cells that may be code, such as those that a user typed.

    Raises:
      ValueError: If it is not a safetensors file that `save_params` wrote, or its cell is unknown
        or is code that is not trusted.
      OSError: If there is no such file.
    """
    with opened_safetensors(path) as file:
        metadata = file.metadata() or {}
        num_numbers = sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())
        found = _description(_check_digest(file, path))
    if found is None:
        raise ValueError(
            f"Expected the cell and its sizes in the metadata of {str(path)!r} under {METADATA!r}, "
            f"got {shorten(metadata)}. Write the file with gradflow.interop.save_params."
        )
    if found.cell in trusted:
        return found
    try:
        resolve(found.cell, allow_code=False)
    except ValueError as error:
        raise ValueError(f"Cannot use the cell of {str(path)!r}. {error}") from None
    if max(found.input_size, found.hidden_size) > num_numbers:
        raise ValueError(
            f"Expected at least as many numbers in {str(path)!r} as it has inputs and hidden "
            f"units, {found.input_size} and {found.hidden_size}, got {num_numbers}. Write the file "
            "with gradflow.interop.save_params."
        )
    return found


def _description(about: Mapping[str, Any]) -> Description | None:
    with contextlib.suppress(TypeError, ValueError):
        found = Description(**about)
        check_sizes(found.input_size, found.hidden_size)
        return found if isinstance(found.cell, str) else None
    return None


def _digest(description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """The digest of the description and of the arrays with their names, types and shapes."""
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape} ".encode() + array.tobytes())
    return digest.hexdigest()


def _check_digest(file: Any, path: str | os.PathLike[str]) -> dict[str, Any]:
    """Verifies the digest of a file, if it has one, and returns the description in its metadata."""
    about: dict[str, Any] = {}
    # Others write files without it.
    with contextlib.suppress(KeyError, TypeError, ValueError, RecursionError):
        about = dict(json.loads((file.metadata() or {})[METADATA]))
    digest = about.pop(SHA256, None)
    if digest is not None:
        arrays = {name: file.get_tensor(name) for name in file.keys()}
        if digest != _digest(about, arrays):
            raise ValueError(
                f"Expected the parameters that were written to {str(path)!r}, but the file is "
                "damaged: its digest is another one. Train the cell again, or copy the file again."
            )
    return about


def named_leaves(tree: Any, place: str) -> dict[str, Any]:
    """Returns the leaves of a tree by their paths, which have to differ."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    keystr = functools.partial(jax.tree_util.keystr, simple=True, separator=".")
    names = [keystr(path) or "params" for path, _ in leaves]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"Expected a unique name for each leaf of {place}, got {', '.join(twice)} twice. "
            "Remove the dots from the names."
        )
    return {name: leaf for name, (_, leaf) in zip(names, leaves, strict=True)}


def _check_shapes(
    expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]], place: str
) -> None:
    wrong = [
        f"{expected.get(name, 'none')} for {name}, got {found.get(name, 'none')}"
        for name in dict.fromkeys([*expected, *found])
        if expected.get(name) != found.get(name)
    ]
    if wrong:
        shown = "; ".join(wrong[:10]) + "; and more" * (len(wrong) > 10)
        raise ValueError(
            f"Expected the names and shapes of the cell's parameters in {place}: {shown}. Pass the "
            "cell and the sizes of these parameters."
        )
