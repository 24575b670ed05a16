"""What every test runs under: float64, shapes checked at run time, one compilation cache."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import jaxtyping
import pytest

jaxtyping.install_import_hook("gradflow", "typechecker.check")


# Most of a run is XLA compiling small programs: this takes it under half the time. What the
# tests assert is mathematics, which does not hang on how hard the compiler tries;
# XLA_FLAGS= ./run.sh test compiles as users do.
QUICK_COMPILATION = (
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
    " --xla_cpu_parallel_codegen_split_count=1"
)


def pytest_configure(config: pytest.Config) -> None:
    if "XLA_FLAGS" not in os.environ:  # those of the workers and of experiments run as commands
        os.environ["XLA_FLAGS"] = QUICK_COMPILATION if _knows(QUICK_COMPILATION) else ""
    # The workers of one run share what one of them has compiled, under the run's own folder.
    cache = os.environ.setdefault(
        "GRADFLOW_TEST_CACHE", tempfile.mkdtemp(prefix="gradflow-test-cache-")
    )
    os.environ["GRADFLOW_COMPILATION_CACHE"] = cache  # that of experiments run as commands
    if not hasattr(config, "workerinput"):
        config.add_cleanup(lambda: _remove(Path(cache)))
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def _knows(flags: str) -> bool:
    """Whether this XLA has all of the flags: it aborts at one that it does not know."""
    code, environment = "import jax; jax.devices()", {**os.environ, "XLA_FLAGS": flags}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
    )
    return done.returncode == 0


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True, scope="module")
def forget_what_was_compiled() -> Iterator[None]:
    """A worker that kept every compiled program of every module would fill the memory."""
    yield
    jax.clear_caches()


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)
