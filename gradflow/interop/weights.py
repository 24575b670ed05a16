"""Trained parameters in a file: safetensors, which any framework reads, with what they are of.

A file has one array for each leaf, named by its way through the parameters, such as ``f.W_h`` or
``1.f.W_h`` in a stack, and in its metadata, under ``gradflow``, the cell and its sizes as JSON.

Source: the format, https://huggingface.co/docs/safetensors.
"""

import contextlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from gradflow.cell import Params
from gradflow.cells import resolve

METADATA = "gradflow"
"""The one key of the metadata: the format keeps several in no certain order."""


class Description(NamedTuple):
    """What the parameters of a file are of.

    Attributes:
      cell: The cell's spec, as `gradflow.cells.resolve` takes it.
      input_size: What its factory was called with.
      hidden_size: The same.
    """

    cell: str
    input_size: int
    hidden_size: int


def save_params(
    path: str | os.PathLike[str], params: Params, *, cell: str, input_size: int, hidden_size: int
) -> None:
    """Writes the parameters of a cell; the file is there whole or not at all.

    Args:
      path: Of the file; its folder is made.
      params: The cell's parameters.
      cell: The cell's spec, such as ``lstm(forget_bias=2)``.
      input_size: Size of its inputs.
      hidden_size: Size of its hidden state.

    Raises:
      ValueError: If there is no such cell, the parameters are not of its names and shapes, or two
        leaves come to one name.
    """
    init = resolve(cell)(input_size, hidden_size).init
    place = f"the parameters of {cell!r}"
    given = _named(params, place)
    like = _named(jax.eval_shape(init, jax.eval_shape(jax.random.key, 0)), place)
    shapes = {name: np.shape(leaf) for name, leaf in given.items()}
    _check_shapes({name: leaf.shape for name, leaf in like.items()}, shapes, place)
    arrays = {name: np.ascontiguousarray(leaf) for name, leaf in given.items()}
    about = Description(cell, input_size, hidden_size)._asdict()
    _write(Path(path), save(arrays, {METADATA: json.dumps(about)}))


def read_params(path: str | os.PathLike[str], like: Params) -> Params:
    """Reads what `save_params` wrote, into the structure and the float types of ``like``.

    Args:
      path: Of the file.
      like: Parameters of the cell, or their shapes by `jax.eval_shape` of its ``init``.

    Raises:
      ValueError: If it is no safetensors file, or its names and shapes are not those of ``like``;
        the message has both.
      OSError: If there is no such file.
    """
    expected = _named(like, "the cell")
    with _opened(path) as file:
        found = {name: file.get_tensor(name) for name in file.keys()}
    shapes = {name: leaf.shape for name, leaf in expected.items()}
    _check_shapes(shapes, {name: array.shape for name, array in found.items()}, str(path))
    leaves = [jnp.asarray(found[name], leaf.dtype) for name, leaf in expected.items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def read_description(path: str | os.PathLike[str]) -> Description:
    """Reads what the parameters of a file are of.

    Raises:
      ValueError: If it is no safetensors file, or not one that `save_params` wrote.
      OSError: If there is no such file.
    """
    with _opened(path) as file:
        metadata = file.metadata() or {}
    with contextlib.suppress(KeyError, TypeError, ValueError):
        about = Description(**json.loads(metadata[METADATA]))
        if all(map(isinstance, about, (str, int, int))):
            return about
    raise ValueError(
        f"the cell and its sizes are expected in the metadata of {str(path)!r} under {METADATA!r}, "
        f"got {metadata}: write the file by gradflow.interop.save_params"
    )


def _named(tree: Any, place: str) -> dict[str, Any]:
    """The leaves by their way through the tree."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    names = [jax.tree_util.keystr(way, simple=True, separator=".") or "params" for way, _ in leaves]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"a name for each leaf is expected of {place}, got {', '.join(twice)} twice: leave the "
            "dots out of the names"
        )
    return {name: leaf for name, (_, leaf) in zip(names, leaves, strict=True)}


def _check_shapes(
    expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]], place: str
) -> None:
    wrong = [
        f"{name}: expected {expected.get(name, 'none')}, got {found.get(name, 'none')}"
        for name in dict.fromkeys([*expected, *found])
        if expected.get(name) != found.get(name)
    ]
    if wrong:
        raise ValueError(
            f"arrays with the names and shapes of the cell's parameters are expected in {place}; "
            f"{'; '.join(wrong)}; give the cell and the sizes that they are of"
        )


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Any:
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r} with parameters of a cell")
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(
            f"a safetensors file is expected at {str(path)!r}, but it cannot be read ({error}): "
            "write it by gradflow.interop.save_params"
        ) from None


def _write(path: Path, content: bytes) -> None:
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
