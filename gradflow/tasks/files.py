"""Input sequences from files: text, a column of a table, an array."""

from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from gradflow.cell import Key
from gradflow.data import series as data
from gradflow.tasks.windows import draw_windows


def read_text(place: str, key: Key, num_sequences: int, num_steps: int) -> Float[Array, "n t v"]:
    """Windows of a UTF-8 text as one-hot vectors over its distinct characters, sorted.

    Raises:
      ValueError: If the file is missing, empty, not UTF-8 or shorter than the steps.
    """
    path = _existing("text:PATH", place)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise data.not_text(path, error) from None
    characters = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    vocabulary, codes = np.unique(characters, return_inverse=True)
    windows = draw_windows(
        key, codes, num_sequences, num_steps, what=f"characters in {str(path)!r}"
    )
    return jnp.asarray(np.eye(len(vocabulary))[windows])


def read_series(place: str, key: Key, num_sequences: int, num_steps: int) -> Float[Array, "n t 1"]:
    """Windows of one column of a CSV file with a header, (x - mean)/std over the whole column.

    Raises:
      ValueError: If the file is missing, empty or not text, there is no such column or one row
        without a finite number in it, the column is constant or shorter than the steps.
    """
    place, _, column = place.rpartition(":")
    path = _existing("series:PATH:COLUMN", place)
    values = data.read_series(path, column).values
    if not values.size or values.min() == values.max():
        raise ValueError(
            f"column {column!r} of {str(path)!r} is expected to vary, got {values.size} rows "
            "of one value: it has no scale to standardise by; choose another column"
        )
    values /= np.abs(values).max()  # the square of a large value would overflow
    scaled = (values - values.mean()) / values.std()
    windows = draw_windows(key, scaled, num_sequences, num_steps, what=f"rows in {str(path)!r}")
    return jnp.asarray(windows[..., None])


def read_npy(place: str, key: Key, num_sequences: int, num_steps: int) -> Float[Array, "n t input"]:
    """The first sequences and steps of an array (T, input) or (N, T, input), in their order.

    Raises:
      ValueError: If the file is missing, not an array of numbers of that shape, too short, of
        too few sequences, or what is asked of it is not finite.
    """
    del key  # the sequences are taken in order
    path = _existing("npy:PATH", place)
    array = _load(path)
    if array.ndim not in (2, 3):
        raise ValueError(
            f"an array of shape (T, input) or (N, T, input) is expected in {str(path)!r}, "
            f"got shape {array.shape}; reshape it before saving"
        )
    array = array[None] if array.ndim == 2 else array
    for name, asked, there in (
        ("num_sequences", num_sequences, array.shape[0]),
        ("num_steps", num_steps, array.shape[1]),
    ):
        if asked > there:
            raise ValueError(
                f"{name} of at most {there} is expected: there are no more in {str(path)!r}, "
                f"got {asked}"
            )
    with np.errstate(over="ignore"):  # an overflow becomes an inf, which is told below
        inputs = array[:num_sequences, :num_steps].astype(jnp.result_type(float))
    _check_finite(inputs, path)
    return jnp.asarray(inputs)


def _existing(form: str, place: str) -> Path:
    if not place:
        raise ValueError(f"a file is expected: write {form}")
    path = Path(place).expanduser()
    if not path.is_file():
        raise ValueError(
            f"there is no file {str(path)!r} for {form}; the path is relative to the current "
            "directory"
        )
    if not path.stat().st_size:
        raise ValueError(f"data is expected in {str(path)!r}, but the file is empty")
    return path


def _load(path: Path) -> Shaped[np.ndarray, "..."]:
    mend = "save numbers with numpy.save(path, array)"
    try:
        with path.open("rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except ValueError as error:
        raise ValueError(f"an array is expected in {str(path)!r}: {error}; {mend}") from None
    if array.dtype.kind not in "biuf":
        raise ValueError(f"real numbers are expected in {str(path)!r}, got {array.dtype}; {mend}")
    return array


def _check_finite(inputs: Float[np.ndarray, "n t input"], path: Path) -> None:
    bad = np.argwhere(~np.isfinite(inputs))
    if len(bad):
        where = tuple(bad[0].tolist())
        raise ValueError(
            f"finite numbers are expected in {str(path)!r}, got {inputs[where]} at (sequence, "
            f"step, channel) = {where}, counted from 0; mend or leave out that step"
        )


FILES: dict[str, Callable[[str, Key, int, int], Array]] = {
    "npy": read_npy,
    "series": read_series,
    "text": read_text,
}
