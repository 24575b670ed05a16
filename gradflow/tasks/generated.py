"""Input sequences that need no file of their own.

Options come from a command line: what they hold is checked, not typed.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Key
from gradflow.tasks.windows import draw_rows

Shape = tuple[int, int, int]
"""(num_sequences, num_steps, input_size)."""


def _finite(name: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{name} is expected to be a finite number, got {value!r}")
    return float(value)


def gaussian(key: Key, shape: Shape, *, std: Any = 1.0) -> Float[Array, "sequences steps input"]:
    """x ~ N(0, std²), independent in every entry.

    Raises:
      ValueError: If std is not a positive number.
    """
    std = _finite("std", std)
    if std <= 0:
        raise ValueError(
            f"std is expected to be positive, got {std}; for zeros use constant(value=0)"
        )
    return std * jax.random.normal(key, shape)


def constant(key: Key, shape: Shape, *, value: Any = 1.0) -> Float[Array, "sequences steps input"]:
    """Every entry is the value: a cell driven by it settles, or does not.

    Raises:
      ValueError: If the value is not a number.
    """
    del key  # nothing is random
    return jnp.full(shape, _finite("value", value), jnp.result_type(float))


def impulse(key: Key, shape: Shape, *, size: Any = 1.0) -> Float[Array, "sequences steps input"]:
    """x_1 = size in every channel, and zero from then on.

    Raises:
      ValueError: If the size is not a number.
    """
    del key  # nothing is random
    return jnp.zeros(shape).at[:, 0].set(_finite("size", size))


def adding(key: Key, shape: Shape) -> Float[Array, "sequences steps 2"]:
    """The adding problem: values U(0, 1) in channel 1, two markers in channel 2.

    One marker stands in the first ⌊T/2⌋ steps and one in the rest; the target is the sum of the
    two values that are marked.

    Raises:
      ValueError: If there is no room for the two markers.

    Source: Hochreiter & Schmidhuber 1997, doi:10.1162/neco.1997.9.8.1735, in the form of Le,
    Jaitly, Hinton 2015, arXiv:1504.00941.
    """
    num_sequences, num_steps, _ = shape
    if num_steps < 2:
        raise ValueError(
            f"the adding problem needs num_steps of at least 2, got {num_steps}: it marks one "
            "step in each half"
        )
    k_values, k_first, k_second = jax.random.split(key, 3)
    half = num_steps // 2
    first = jax.random.randint(k_first, (num_sequences,), 0, half)
    second = jax.random.randint(k_second, (num_sequences,), half, num_steps)
    values = jax.random.uniform(k_values, (num_sequences, num_steps))
    markers = jax.nn.one_hot(first, num_steps) + jax.nn.one_hot(second, num_steps)
    return jnp.stack([values, markers.astype(values.dtype)], axis=-1)


def digits(key: Key, shape: Shape) -> Float[Array, "sequences steps 1"]:
    """Handwritten digits, row after row, one pixel a step: T = 64, grey from 0 to 1.

    The images are drawn by the key, none twice where there are enough; fewer steps take the
    first pixels.

    Raises:
      ValueError: If there are more steps than pixels.

    Source: Alpaydin & Kaynak 1998, doi:10.24432/C50P49, as `sklearn.datasets.load_digits`.
    """
    from sklearn.datasets import load_digits  # a second of import that others need not wait for

    images = load_digits(return_X_y=True)[0] / 16
    num_sequences, num_steps, _ = shape
    if num_steps > images.shape[1]:
        raise ValueError(
            f"num_steps of at most {images.shape[1]} is expected for digits, got {num_steps}: "
            "an image has 64 pixels, one a step"
        )
    rows = draw_rows(key, len(images), num_sequences)
    return jnp.asarray(images[rows, :num_steps, None])


GENERATED: dict[str, Callable[..., Array]] = {
    "adding": adding,
    "constant": constant,
    "digits": digits,
    "gaussian": gaussian,
    "impulse": impulse,
}
