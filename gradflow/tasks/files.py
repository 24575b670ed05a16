"""Input sequences from files: text, a column of a table, an array."""

import io
import math
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from gradflow.cell import Key
from gradflow.checks import shorten
from gradflow.data.characters import as_characters
from gradflow.data.files import read_text_file
from gradflow.data.series import read_series as read_column
from gradflow.paths import user_path
from gradflow.tasks.windows import sample_windows

MAX_BYTES = 1 << 32
"""Largest size of the inputs in memory: 4 GiB."""


def read_text(place: str, key: Key, num_sequences: int, num_steps: int) -> Float[Array, "n t v"]:
    """Reads windows of a UTF-8 text as one-hot vectors over its distinct characters, sorted.

    Raises:
      ValueError: If the file is missing, empty, not UTF-8 or shorter than the steps, or has so many
        distinct characters that the inputs are larger than `MAX_BYTES`.
    """
    path = _existing("text:PATH", place)
    codes, vocabulary = as_characters(read_text_file(path))
    what = f"characters in {str(path)!r}"
    windows = sample_windows(key, codes, num_sequences, num_steps, what=what)
    _check_memory((*windows.shape, len(vocabulary)), path)
    return jax.nn.one_hot(windows, len(vocabulary), dtype=jnp.result_type(float))


def read_series(place: str, key: Key, num_sequences: int, num_steps: int) -> Float[Array, "n t 1"]:
    """Reads windows of a column of a CSV file, standardised over the whole column.

    Raises:
      ValueError: If the file is missing, empty or not text, there is no such column, a row of it
        is not a finite number, or the column is constant or shorter than the steps.
    """
    place, _, column = place.rpartition(":")
    path = _existing("series:PATH:COLUMN", place)
    values = read_column(path, column).values
    if not values.size or values.min() == values.max():
        raise ValueError(
            f"Expected the column {column!r} of {str(path)!r} to vary, got {values.size} rows of "
            "one value, which cannot be standardised. Choose another column."
        )
    values /= np.abs(values).max()  # else the square of a large value would overflow
    scaled = (values - values.mean()) / values.std()
    windows = sample_windows(key, scaled, num_sequences, num_steps, what=f"rows in {str(path)!r}")
    return jnp.asarray(windows[..., None])


def read_npy(place: str, key: Key, num_sequences: int, num_steps: int) -> Float[Array, "n t input"]:
    """Reads the first sequences and steps of an array (T, input) or (N, T, input).

    Raises:
      ValueError: If the file is missing or not an array of numbers of that shape, if it has too few
        steps or sequences, or if a number that is read is not finite.
    """
    del key  # the sequences are taken in order
    path = _existing("npy:PATH", place)
    array = load_array(path)
    axes = _axes(path, array.shape)
    array = array[None] if array.ndim == 2 else array
    for name, requested, available in (
        ("num_sequences", num_sequences, array.shape[0]),
        ("num_steps", num_steps, array.shape[1]),
    ):
        if requested > available:
            raise ValueError(
                f"Expected {name} of at most {available}, all that {str(path)!r} has, read as "
                f"{axes}, got {requested}. Reduce {name}, or save the array with its axes in this "
                "order."
            )
    _check_memory((num_sequences, num_steps, array.shape[2]), path)
    with np.errstate(over="ignore"):  # an overflow becomes an inf, which is reported below
        inputs = array[:num_sequences, :num_steps].astype(jnp.result_type(float))
    _check_finite(inputs, path)
    return jnp.asarray(inputs)


def axes_of_npy(place: str) -> str:
    """Describes which axis of an array in a file is read as what: ``(T, input) = (200, 16)``.

    Raises:
      ValueError: If the file is missing or not an array of numbers of two or three axes.
    """
    path = _existing("npy:PATH", place)
    return _axes(path, load_array(path).shape)


def _axes(path: Path, shape: tuple[int, ...]) -> str:
    names = {2: "(T, input)", 3: "(N, T, input)"}
    if len(shape) not in names:
        raise ValueError(
            f"Expected an array of shape (T, input) or (N, T, input) in {str(path)!r}, got shape "
            f"{shape}. Reshape it before saving."
        )
    return f"{names[len(shape)]} = {shape}"


def _existing(form: str, place: str) -> Path:
    if not place:
        raise ValueError(f"Expected the path of a file, got none. Write {form}.")
    path = user_path(place)
    if not path.is_file():
        raise ValueError(
            f"Expected a file at {str(path)!r} for {form}, got none. Check the path, which is "
            "relative to the current directory."
        )
    if not path.stat().st_size:
        raise ValueError(f"Expected data in {str(path)!r}, got an empty file. Choose another file.")
    return path


def _check_memory(shape: tuple[int, ...], path: Path) -> None:
    size = math.prod(shape) * jnp.result_type(float).itemsize
    if size > MAX_BYTES:
        raise ValueError(
            f"Expected inputs of at most {MAX_BYTES / 2**30:g} GiB from {str(path)!r}, got "
            f"{size / 2**30:.1f} GiB for the shape (sequences, steps, channels) = {shape}. Reduce "
            "num_sequences or num_steps, or use a file with fewer channels (of a text: fewer "
            "distinct characters)."
        )


def load_array(path: Path) -> Shaped[np.ndarray, "..."]:
    """Maps an array of real numbers into memory, so that only the part that is used is read.

    Raises:
      ValueError: If the file is not one array of numbers, saved by `numpy.save`.
      OSError: If there is no such file.
    """
    fix = "Save one array of numbers with numpy.save(path, array)."
    with path.open("rb") as file:
        try:
            shape, is_fortran, dtype = _read_header(file)
        except Exception as error:  # NumPy raises errors of many types for a damaged header
            raise ValueError(
                f"Expected an array in {str(path)!r}, got: {shorten(error)}. {fix}"
            ) from None
        start = file.tell()
    if dtype.kind not in "biuf":
        raise ValueError(f"Expected real numbers in {str(path)!r}, got {dtype}. {fix}")
    found, expected = path.stat().st_size - start, math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or found != expected:
        raise ValueError(
            f"Expected {expected} bytes in {str(path)!r} for its array of shape {shape}, got "
            f"{found}. {fix}"
        )
    if not expected:  # nothing cannot be mapped
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype, "r", start, shape, "F" if is_fortran else "C")


def _read_header(file: io.BufferedIOBase) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Reads the shape, the order and the type of an array in the npy format."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f"version {version} of the format, which is not for arrays of numbers")


def _check_finite(inputs: Float[np.ndarray, "n t input"], path: Path) -> None:
    bad = np.argwhere(~np.isfinite(inputs))
    if len(bad):
        where = tuple(bad[0].tolist())
        raise ValueError(
            f"Expected finite numbers in {str(path)!r}, got {inputs[where]} at (sequence, step, "
            f"channel) = {where}, counted from 0. Correct or remove that step."
        )


FILES: dict[str, Callable[[str, Key, int, int], Array]] = {
    "npy": read_npy,
    "series": read_series,
    "text": read_text,
}
