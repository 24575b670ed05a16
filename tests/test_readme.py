"""The README and the pages say what is so: numbers are measured again, code runs, links lead."""

import importlib
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from studies import load

from gradflow import study
from gradflow.cells import resolve
from gradflow.study.flags import parse
from gradflow.testing import check_cell

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
START = (ROOT / "docs" / "start.md").read_text(encoding="utf-8")
CELL, LIBRARY = (re.findall(r"```python\n(.*?)```", page, re.S) for page in (README, START))
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "experiments/README.md")),
    *sorted(ROOT.glob("docs/*.md")),
]
MADE_BY_THE_BUILD = {"catalogue/index.md"}


def test_the_version_is_one():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    newest = re.search(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert newest is not None and newest[1] == version


def vanishing():
    return load("vanishing").EXPERIMENT


NUMBER = r"\d+\.?\d*"


def numbers(line: str) -> list[float]:
    return [float(number) for number in re.findall(NUMBER, line)]


def test_the_lines_that_the_first_command_prints():
    experiment = vanishing()
    config = experiment.resolve({})
    with study.precision(config):
        printed = experiment.report(experiment.run(config)).splitlines()
    first = START.splitlines().index(printed[0])
    quoted = START.splitlines()[first : first + len(printed)]
    for line, quote in zip(printed, quoted, strict=True):
        assert re.sub(NUMBER, "", line) == re.sub(NUMBER, "", quote)
        np.testing.assert_allclose(numbers(line), numbers(quote), rtol=2e-3)


def test_the_cell_of_ones_own_is_a_cell_and_runs(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(CELL[0])
    monkeypatch.chdir(tmp_path)
    check_cell(resolve("mine.py:mgu"))
    code = study.main(vanishing(), ["--cell=mine.py:mgu,lstm", "--quick", "--workdir=out"])
    assert code == 0
    assert (tmp_path / "out" / "DONE").exists()


def test_its_factory_takes_ten_lines_for_its_equations():
    step = CELL[0][CELL[0].index("    def step") :]
    assert len([line for line in step.splitlines() if line.strip()]) <= 10


def test_the_library_example_runs():
    result = subprocess.run(
        [sys.executable, "-c", LIBRARY[0]], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["vanishing"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    here = [link for link in links if "://" not in link and link not in MADE_BY_THE_BUILD]
    assert not [link for link in here if not (page.parent / link).exists()]


def test_every_experiment_is_on_the_page_of_studies_or_of_papers():
    pages = [ROOT / "docs" / name for name in ("studies.md", "papers.md")]
    table = "".join(page.read_text(encoding="utf-8") for page in pages)
    paths = [*(ROOT / "experiments").glob("*.py"), *(ROOT / "experiments/papers").glob("[a-z]*.py")]
    names = [path.name for path in paths if path.stem not in ("figures", "run")]
    names += [f"{path.parent.name}/" for path in ROOT.glob("experiments/*/__main__.py")]
    assert names
    assert [name for name in names if name not in table] == []


COMMANDS = {
    command
    for page in PAGES
    for command in re.findall(r"\./run\.sh ([a-z_]+ --[^`\n]*|[a-z_]+)`", page.read_text())
}


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_of_the_pages_is_understood(command, monkeypatch):
    name, *flags = shlex.split(command)
    if name in ("docs", "faults", "figures", "sweep", "tables", "test", "lint", "setup"):
        return
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    file = ROOT / "experiments" / f"{name}.py"
    found = runpy.run_path(str(file)) if file.exists() else vars(importlib.import_module(name))
    experiment = found["EXPERIMENT"]
    request = parse(experiment, flags)
    assert isinstance(experiment.resolve(request.given), experiment.config)
