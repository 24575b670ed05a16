"""Where compiled programs are kept between runs."""

import jax
import pytest

from gradflow.study.settings import CACHE, compilation_cache


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
