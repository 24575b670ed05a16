"""The pages on adding a measurement, a study and a paper: their code is run as it is printed."""

import importlib
import re
import sys
from pathlib import Path

import pytest

from gradflow import flow, study

ROOT = Path(__file__).parents[1]


def blocks(page: str) -> list[str]:
    text = (ROOT / "docs" / f"add_a_{page}.md").read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Writes the code of a page to a file beside the studies' parts, and imports it."""

    def load(name, code):
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
        for folder in (ROOT / "experiments", ROOT / "experiments" / "papers", tmp_path):
            monkeypatch.syspath_prepend(folder)
        module = importlib.import_module(name)
        del sys.modules[name]  # a page that is loaded again is run again
        return module

    return load


@pytest.fixture
def measurement(made):
    """The code of the page on measurements, while its entry is in the catalogue."""
    try:
        yield made("determinants", "\n\n".join(blocks("measurement")))
    finally:
        flow.CATALOGUE.pop("log_determinants", None)


def test_the_measurement_is_measured_by_its_entry(measurement):
    measurement.test_the_determinants_sum_to_the_exponents()


def test_the_measurement_passes_the_tests_of_every_measurement(measurement, monkeypatch):
    del measurement  # it is in the catalogue
    monkeypatch.syspath_prepend(ROOT / "tests" / "flow")
    every = importlib.import_module("test_every_measurement")
    name = "log_determinants"
    monkeypatch.setitem(every.MEASURES, name, every.measurement(name))
    every.test_under_jit_and_vmap_it_is_that_of_each_sequence(name)
    every.test_float32_equals_float64_to_its_rounding(name)
    for step in (every.CUT, every.T):
        every.test_it_is_nan_through_a_carry_that_is_not_finite(name, step)
    every.test_bad_arguments_raise_before_anything_is_compiled(name)


def test_the_study_runs_draws_and_decides_its_claim(made, tmp_path):
    (code,) = blocks("study")
    one = made("gain", code).EXPERIMENT
    folder = tmp_path / "record"
    assert study.main(one, ["--quick", f"--workdir={folder}"]) == 0
    assert (folder / "figure.png").stat().st_size > 0
    (claim,) = one.claims(study.read_dataset(folder / "result.nc"))
    assert claim.verdict == "supported" and claim.measured[0].value > 0.3  # log 2 for a linear RNN


def test_the_paper_runs_draws_and_reproduces_its_claims(made, tmp_path):
    (code,) = blocks("paper")
    one = made("saxe2014", code).EXPERIMENT
    folder = tmp_path / "record"
    assert study.main(one, ["--quick", f"--workdir={folder}"]) == 0
    assert (folder / "figure.png").stat().st_size > 0
    verdicts = [claim.verdict for claim in one.claims(study.read_dataset(folder / "result.nc"))]
    assert verdicts == ["reproduced", "reproduced"]
