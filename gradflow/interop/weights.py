"""Parameters of a cell in a safetensors file, which other frameworks read as well.

A file has one array for each leaf, named by its path in the parameters, such as ``f.W_h``, or
``1.f.W_h`` in a stack. The metadata has the cell and its sizes as JSON, under ``gradflow``.

Source: the format, https://huggingface.co/docs/safetensors.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from gradflow.cell import Params, param_shapes
from gradflow.cells import resolve

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
    given = _named(params, place)
    like = _named(param_shapes(resolve(cell)(input_size, hidden_size)), place)
    shapes = {name: np.shape(leaf) for name, leaf in given.items()}
    _check_shapes({name: leaf.shape for name, leaf in like.items()}, shapes, place)
    arrays = {name: np.ascontiguousarray(leaf) for name, leaf in given.items()}
    description = Description(cell, input_size, hidden_size)._asdict()
    about = {**description, SHA256: _digest(description, arrays)}
    _write(Path(path), save(arrays, {METADATA: json.dumps(about)}))


def read_params(path: str | os.PathLike[str], like: Params) -> Params:
    """Reads parameters from a file into the structure and float types of ``like``.

    Args:
      path: Path of the file.
      like: Parameters of the cell, or their shapes as `gradflow.cell.param_shapes` returns them.

    Raises:
      ValueError: If it is not a safetensors file, it has a digest that is not that of its content,
        or its names and shapes are not those of ``like``; the message lists both.
      OSError: If there is no such file.
    """
    expected = _named(like, "the cell")
    with _opened(path) as file:
        found = _read_arrays(file, path)
    shapes = {name: leaf.shape for name, leaf in expected.items()}
    _check_shapes(shapes, {name: array.shape for name, array in found.items()}, str(path))
    leaves = [jnp.asarray(found[name], leaf.dtype) for name, leaf in expected.items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def read_description(path: str | os.PathLike[str]) -> Description:
    """Reads the cell to which the parameters of a file belong.

    Raises:
      ValueError: If it is not a safetensors file that `save_params` wrote.
      OSError: If there is no such file.
    """
    with _opened(path) as file:
        metadata = file.metadata() or {}
        _read_arrays(file, path)  # so that the description is verified too
    with contextlib.suppress(KeyError, TypeError, ValueError):
        about = json.loads(metadata[METADATA])
        about.pop(SHA256, None)
        found = Description(**about)
        if all(map(isinstance, found, (str, int, int))):
            return found
    raise ValueError(
        f"Expected the cell and its sizes in the metadata of {str(path)!r} under {METADATA!r}, "
        f"got {metadata}. Write the file with gradflow.interop.save_params."
    )


def _digest(description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """The digest of the description and of the arrays with their names, types and shapes."""
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape} ".encode() + array.tobytes())
    return digest.hexdigest()


def _read_arrays(file: Any, path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads all arrays of a file, and verifies its digest if it has one."""
    arrays, about = {name: file.get_tensor(name) for name in file.keys()}, {}
    with contextlib.suppress(KeyError, TypeError, ValueError):  # a file that others wrote
        about = dict(json.loads((file.metadata() or {})[METADATA]))
    digest = about.pop(SHA256, None)
    if digest is not None and digest != _digest(about, arrays):
        raise ValueError(
            f"Expected the parameters that were written to {str(path)!r}, but the file is damaged: "
            "its digest is another one. Train the cell again, or copy the file again."
        )
    return arrays


def _named(tree: Any, place: str) -> dict[str, Any]:
    """Returns the leaves by their paths in the tree."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]
    names = [name or "params" for name in names]
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
        raise ValueError(
            f"Expected the names and shapes of the cell's parameters in {place}: "
            f"{'; '.join(wrong)}. Pass the cell and the sizes of these parameters."
        )


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Any:
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"Expected a file with parameters of a cell at {str(path)!r}, got none. Check the path."
        )
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(
            f"Expected a safetensors file at {str(path)!r}, but it cannot be read ({error}). Write "
            "it with gradflow.interop.save_params."
        ) from None


def _write(path: Path, content: bytes) -> None:
    # A rename is atomic: the file appears only after its content is on the disk.
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(draft, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
