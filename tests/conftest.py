"""What every test runs under: float64, shapes checked at run time, one compilation cache."""

import contextlib
import ctypes
import gc
import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import jaxtyping
import pytest
import xarray

jaxtyping.install_import_hook("gradflow", "typechecker.check")

from gradflow import study  # noqa: E402  (after the hook)
from gradflow.study.settings import compile_quickly  # noqa: E402  (after the hook)

ENOUGH = 4 * 2**20
"""KiB of memory from which a worker forgets what it has compiled after a module."""


def pytest_configure(config: pytest.Config) -> None:
    # Tracing makes many small objects and few cycles, and a tenth of the time was the search for
    # cycles.
    gc.set_threshold(100_000, 20, 20)
    # Most of a run is XLA compiling small programs. What the tests assert is mathematics, which
    # does not hang on how hard the compiler tries; XLA_FLAGS= ./run.sh test compiles as users do.
    compile_quickly()
    # The workers of a run share what one of them has compiled, and so do runs: nearly half of the
    # time of a first run is compiling. pytest --cache-clear empties the folder.
    if "GRADFLOW_TEST_CACHE" not in os.environ:
        if config.pluginmanager.hasplugin("cacheprovider"):
            folder = config.cache.mkdir("compiled")
        else:
            folder = Path(tempfile.mkdtemp(prefix="gradflow-test-cache-"))
            config.add_cleanup(lambda: _remove(folder))
        os.environ["GRADFLOW_TEST_CACHE"] = str(folder)
    cache = os.environ["GRADFLOW_TEST_CACHE"]
    os.environ["GRADFLOW_COMPILATION_CACHE"] = cache  # that of experiments run as commands
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # They run whole programs: a third of the time, which a change of the library mostly spares.
    for item in items:
        if hasattr(item.getparent(pytest.Module).obj, "EXPERIMENT"):
            item.add_marker(pytest.mark.slow(reason="runs a study"))


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True, scope="module")
def forget_what_was_compiled() -> Iterator[None]:
    """A worker that kept every compiled program of every module would fill the memory."""
    yield
    if _memory() > ENOUGH:
        jax.clear_caches()
        gc.collect()
        # glibc keeps what was freed: the memory in use would stay above the limit, and the programs
        # that all modules share would be compiled again for each.
        with contextlib.suppress(AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def _memory() -> int:
    """KiB of memory in use, or where the system does not say, the most that was."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * resource.getpagesize() // 1024


@pytest.fixture
def without_checks_of_types() -> Iterator[None]:
    """As users run: a value of another type reaches the code, whose own error is then tested."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The record of one run of the module's EXPERIMENT, with its figure: --quick, or its FLAGS."""
    folder = tmp_path_factory.mktemp(request.module.EXPERIMENT.name) / "run"
    flags = getattr(request.module, "FLAGS", ["--quick"])
    assert study.main(request.module.EXPERIMENT, [*flags, f"--workdir={folder}"]) == 0
    assert (folder / "figure.png").stat().st_size > 10_000
    return folder


@pytest.fixture(scope="module")
def dataset(folder: Path) -> xarray.Dataset:
    """The dataset of that run."""
    return study.read_dataset(folder / "result.nc")
