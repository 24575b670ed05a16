"""The papers' files import each other by name. The quick run of each paper, once for all tests."""

import functools
import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import xarray

from gradflow import study

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments" / "papers"))


@pytest.fixture(scope="session")
def quick_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], xarray.Dataset]:
    """name -> the record of the paper's quick run, which is cached."""

    @functools.cache
    def run(name: str) -> xarray.Dataset:
        folder = tmp_path_factory.mktemp(name) / "run"
        paper = importlib.import_module(name).EXPERIMENT
        assert study.main(paper, ["--quick", f"--workdir={folder}"]) == 0
        return study.read_dataset(folder / "result.nc")

    return run
