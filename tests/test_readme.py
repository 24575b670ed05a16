"""The README says what is so: its numbers are measured again, its blocks run, its links lead."""

import importlib
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from studies import load

from gradflow import study
from gradflow.cells import resolve
from gradflow.study.flags import parse
from gradflow.testing import check_cell

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), ROOT / "experiments/README.md"]


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
    first = README.splitlines().index(printed[0])
    quoted = README.splitlines()[first : first + len(printed)]
    for line, quote in zip(printed, quoted, strict=True):
        assert re.sub(NUMBER, "", line) == re.sub(NUMBER, "", quote)
        np.testing.assert_allclose(numbers(line), numbers(quote), rtol=2e-3)


def test_the_cell_of_ones_own_is_a_cell_and_runs(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(BLOCKS[0])
    monkeypatch.chdir(tmp_path)
    check_cell(resolve("mine.py:mgu"))
    code = study.main(vanishing(), ["--cell=mine.py:mgu,lstm", "--quick", "--workdir=out"])
    assert code == 0
    assert (tmp_path / "out" / "DONE").exists()


def test_its_factory_takes_ten_lines_for_its_equations():
    step = BLOCKS[0][BLOCKS[0].index("    def step") :]
    assert len([line for line in step.splitlines() if line.strip()]) <= 10


def test_the_library_example_runs():
    result = subprocess.run(
        [sys.executable, "-c", BLOCKS[1]], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["vanishing"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


def test_every_experiment_is_in_the_table():
    table = (ROOT / "experiments" / "README.md").read_text()
    paths = [*(ROOT / "experiments").glob("*.py"), *(ROOT / "experiments/papers").glob("[a-z]*.py")]
    names = [path.name for path in paths if path.stem not in ("figures", "run")]
    names += [f"{path.parent.name}/" for path in ROOT.glob("experiments/*/__main__.py")]
    assert names
    assert [name for name in names if name not in table] == []


COMMANDS = {
    command
    for page in (*PAGES, ROOT / "figures/README.md")
    for command in re.findall(r"\./run\.sh ([a-z_]+ --[^`\n]*|[a-z_]+)`", page.read_text())
}


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_of_the_pages_is_understood(command, monkeypatch):
    name, *flags = shlex.split(command)
    if name in ("faults", "figures", "sweep", "tables", "test", "lint", "setup"):
        return
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    file = ROOT / "experiments" / f"{name}.py"
    found = runpy.run_path(str(file)) if file.exists() else vars(importlib.import_module(name))
    experiment = found["EXPERIMENT"]
    request = parse(experiment, flags)
    assert isinstance(experiment.resolve(request.given), experiment.config)
