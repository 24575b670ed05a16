"""The settings of a whole process, set for one block and put back after it."""

import contextlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from absl import logging

from gradflow.study.config import Config, digest

CACHE = "GRADFLOW_COMPILATION_CACHE"
"""The environment's name for the folder of compiled programs; ``off`` for none."""

QUICK_COMPILATION = (
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
    " --xla_cpu_parallel_codegen_split_count=1"
)
"""XLA's flags for what computes little: it compiles in under half the time, to slower programs."""

SOONER = "--xla_backend_optimization_level=2"
"""XLA's flag that halves the time of compiling, to programs that are as fast."""

WORTH_KEEPING = 0.1
"""Seconds of compiling from which a program is kept."""


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
        for name, value in wanted.items():
            jax.config.update(name, value)
        yield
    finally:
        for name, value in before.items():
            with contextlib.suppress(RuntimeError):  # devices cannot be changed once JAX has them
                jax.config.update(name, value)


def check_backend() -> None:
    """Lets JAX look for its devices.

    Raises:
      ValueError: If it finds none.
    """
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter for --jax_platforms=cuda
        reason = str(error) or f"it looked for {jax.config.values['jax_platforms']}"
        raise ValueError(
            f"JAX finds no device: {reason}. Choose others with --jax_platforms."
        ) from None


def compile_sooner() -> None:
    """Sets `SOONER` for this process and those that it starts, unless a level is set already.

    A study runs each of its programs once or a few times. It has to come before JAX has looked
    for devices.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_backend_optimization_level" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {SOONER}".strip()


def compilation_cache(folder: str | None) -> dict[str, Any]:
    """JAX's settings by which compiled programs outlive the process, and the next run starts soon.

    They are kept in the folder given; else in the one that JAX is set to, or `CACHE` names; else in
    the user's cache, where each machine has a folder of its own. Nothing is set if that cannot
    be written to.
    """
    folder = folder or jax.config.values["jax_compilation_cache_dir"] or os.environ.get(CACHE)
    if folder == "off":
        return {}
    try:
        path = Path(folder) if folder else _user_cache()
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # it cannot be made, or there is no home
        return {}
    return {
        "jax_compilation_cache_dir": str(path),
        "jax_persistent_cache_min_compile_time_secs": WORTH_KEEPING,
    }


def _user_cache() -> Path:
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "gradflow" / digest(platform.node(), platform.machine())


@contextlib.contextmanager
def log_level(verbosity: int) -> Iterator[None]:
    """Lets absl's log messages of this level and below through within the block."""
    before = logging.get_verbosity()
    logging.set_verbosity(verbosity)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def compile_quickly() -> None:
    """Sets `QUICK_COMPILATION` for this process and those that it starts.

    It has to come before JAX has looked for devices. Where the environment has ``XLA_FLAGS``,
    empty ones too, or XLA does not know these, nothing is set.
    """
    if "XLA_FLAGS" not in os.environ:
        os.environ["XLA_FLAGS"] = QUICK_COMPILATION if _knows(QUICK_COMPILATION) else ""


def _knows(flags: str) -> bool:
    """Whether this XLA has all of the flags: it aborts at one that it does not know."""
    code, environment = "import jax; jax.devices()", {**os.environ, "XLA_FLAGS": flags}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
    )
    return done.returncode == 0
