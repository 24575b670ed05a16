"""What every test runs under: float64, shapes checked at run time, one compilation cache."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import jaxtyping
import pytest

jaxtyping.install_import_hook("gradflow", "typechecker.check")


def pytest_configure(config: pytest.Config) -> None:
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
