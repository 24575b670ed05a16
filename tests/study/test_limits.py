"""Numbers that no run can have, in every field of every study and paper: one line, no work."""

import dataclasses
import importlib
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

import pytest

from gradflow import study
from gradflow.study import memory

FOLDER = Path(__file__).parents[2] / "experiments"
sys.path[:0] = [str(FOLDER), str(FOLDER / "papers")]

from _kit.gallery import studies  # noqa: E402  (after the path)

PAPERS = sorted(path.stem for path in FOLDER.glob("papers/[a-z]*.py") if path.stem != "run")
BAD = {"int": ("1000000000000", str(-(2**70))), "float": ("nan", "1e400", "-inf")}


def papers() -> list[study.Experiment]:
    return [importlib.import_module(name).EXPERIMENT for name in PAPERS]


def experiments() -> Iterator[study.Experiment]:
    """All studies and papers, which fail if they are run."""
    for one in (*studies().values(), *papers()):
        yield dataclasses.replace(one, run=lambda config, once: pytest.fail("it was run"))


def flags(experiment: study.Experiment) -> Iterator[str]:
    """A bad value for each number, each of the values in turn."""
    for kind, values in BAD.items():
        # A number may also be a part of a tuple, or None.
        hints = get_type_hints(experiment.config).items()
        numbers = (name for name, hint in hints if kind in str(hint))
        yield from (f"--{n}={v}" for n, v in zip(numbers, itertools.cycle(values), strict=False))


def test_numbers_beyond_all_limits_are_refused_by_their_flags(tmp_path, capsys):
    tried, wrong = 0, []
    for one in experiments():
        for flag in flags(one):
            code = study.main(one, ["--quick", flag, f"--workdir={tmp_path}/run"])
            shown = capsys.readouterr().err
            tried += 1
            if code != 2 or not shown.startswith(f"error: flag {flag}: Expected"):
                wrong.append((one.name, flag, code, shown))
            elif shown.count("\n") != 1:
                wrong.append((one.name, flag, code, shown))
    assert not wrong and tried > 300


@pytest.mark.parametrize("name", ["num_seeds", "num_steps", "hidden_size", "input_size", "units"])
def test_sizes_beyond_the_memory_are_refused_before_any_work(tmp_path, capsys, monkeypatch, name):
    monkeypatch.setattr(memory, "memory", lambda: 8 * 10**9)
    having = [one for one in experiments() if hasattr(one.config, name)]
    for one in having:
        assert study.main(one, ["--quick", f"--{name}=2147483647", f"--workdir={tmp_path}/run"])
        shown = capsys.readouterr().err
        assert f"of memory, and this machine has 8 GB. Reduce --{name}=2147483647." in shown
        assert shown.count("\n") == 1
    assert having and not list(tmp_path.iterdir())


def test_an_unknown_name_is_refused_in_one_line_wherever_there_are_several(tmp_path, capsys):
    tried = 0
    for one in (*studies().values(), *papers()):
        for name, hint in get_type_hints(one.config).items():
            if hint == tuple[str, ...]:
                flags = [f"--{name}=no_such_name", f"--workdir={tmp_path}/run"]
                assert study.main(one, ["--quick", *flags]) in (1, 2), (one.name, name)
                assert capsys.readouterr().err.count("\n") == 1
                tried += 1
    assert tried > 10
