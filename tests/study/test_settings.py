"""Where compiled programs are kept between runs, and how hard they are compiled."""

import os

import jax
import pytest

from gradflow.cores import PATIENCE, use_all_cores
from gradflow.study import settings
from gradflow.study.settings import (
    CACHE,
    compilation_cache,
    compile_quickly,
    compile_sooner,
)


@pytest.fixture(autouse=True)
def unset(monkeypatch, tmp_path):
    """A process in which neither JAX nor the environment names a folder."""
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.delenv(CACHE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    yield
    jax.config.update("jax_compilation_cache_dir", before)


def folder(given=None):
    return compilation_cache(given).get("jax_compilation_cache_dir")


def test_the_first_that_names_a_folder_has_its_way(monkeypatch, tmp_path):
    assert folder().startswith(str(tmp_path / "user" / "gradflow"))
    monkeypatch.setenv(CACHE, str(tmp_path / "environment"))
    assert folder() == str(tmp_path / "environment")
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "jax"))
    assert folder() == str(tmp_path / "jax")
    assert folder(str(tmp_path / "given")) == str(tmp_path / "given")


def test_it_can_be_switched_off_and_does_without_a_folder_that_cannot_be(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE, "off")
    assert compilation_cache(None) == {}
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE, str(tmp_path / "file" / "below"))
    assert compilation_cache(None) == {}


def test_flags_are_set_that_xla_knows_and_none_over_the_user_s(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    compile_quickly()
    assert os.environ["XLA_FLAGS"] == ""
    for flags, found in (("--xla_cpu_enable_fast_math=false",) * 2, ("--xla_of_no_release", "")):
        monkeypatch.setattr(settings, "QUICK_COMPILATION", flags)
        monkeypatch.delenv("XLA_FLAGS")
        compile_quickly()
        assert os.environ["XLA_FLAGS"] == found


def test_llvm_optimises_less_unless_it_has_been_told_how_much(monkeypatch):
    for before, found in (
        (None, settings.SOONER),
        ("--xla_dump_to=", f"--xla_dump_to= {settings.SOONER}"),
        ("--xla_backend_optimization_level=3", "--xla_backend_optimization_level=3"),
    ):
        monkeypatch.delenv("XLA_FLAGS", raising=False)
        if before is not None:
            monkeypatch.setenv("XLA_FLAGS", before)
        compile_sooner()
        assert os.environ["XLA_FLAGS"] == found


def test_cores_are_no_devices_where_jax_has_been_told_or_has_looked(monkeypatch):
    before = jax.devices()
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=")
    use_all_cores()
    assert jax.devices() == before
    assert os.environ["XLA_FLAGS"] == f"--xla_dump_to= {PATIENCE}"
    asked = []
    monkeypatch.setattr(jax.config, "update", lambda *option: asked.append(option))
    use_all_cores()
    assert asked == [("jax_num_cpu_devices", len(os.sched_getaffinity(0)))]
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=3")
    use_all_cores()
    assert len(asked) == 1
