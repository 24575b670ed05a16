"""A computation in a precision of its own, whatever JAX's global settings are."""

import contextlib
from collections.abc import Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

Precision = Literal["float64", "float32"]


@contextlib.contextmanager
def computing_in(precision: str) -> Iterator[None]:
    """Lets JAX compute in a precision within the block; its global settings stay as they are.

    Raises:
      ValueError: If there is no such precision.
    """
    if precision not in ("float64", "float32"):
        raise ValueError(
            f"Expected precision='float64' or 'float32', got {precision!r}. Give one of them."
        )
    with jax.enable_x64(precision == "float64"):
        yield


def to_precision(tree: Any, precision: str) -> Any:
    """Copies arrays to the host, the floating ones as floats of a precision.

    Leaves that are no numbers, such as random keys, are returned as they are.
    """

    def one(leaf: Any) -> Any:
        dtype = jnp.result_type(leaf) if isinstance(leaf, float) else getattr(leaf, "dtype", None)
        if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
            return leaf
        return np.asarray(jax.device_get(leaf)).astype(precision)

    return jax.tree.map(one, tree)
