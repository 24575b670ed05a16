"""The settings of a whole process, set for one block and put back after it."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from absl import logging

from gradflow.study.config import Config


@contextlib.contextmanager
def precision(config: Config, **options: Any) -> Iterator[None]:
    """Computes everything within the block in the configuration's precision.

    Matrix products are in the highest precision. ``options`` are JAX's own, which win; all of
    JAX's settings are afterwards what they were before.
    """
    wanted = {
        "jax_enable_x64": config.precision == "float64",
        "jax_default_matmul_precision": "highest",
        **options,
    }
    before = {name: jax.config.values[name] for name in wanted}
    try:
        _update(wanted)
        yield
    finally:
        _update(before)


def _update(options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        jax.config.update(name, value)


@contextlib.contextmanager
def log_level(verbosity: int) -> Iterator[None]:
    """Lets absl's log messages of this level and below through within the block."""
    before = logging.get_verbosity()
    logging.set_verbosity(verbosity)
    try:
        yield
    finally:
        logging.set_verbosity(before)
