"""The studies' numbers: the tables quote the records, and the quick records come out again."""

import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

from gradflow import study
from gradflow.study.flags import parse

ROOT = Path(__file__).parents[1]
TABLE = (ROOT / "experiments" / "README.md").read_text()
NUMBER = re.compile(r"(?<![\w.])[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?")

# Those that neither train, whose numbers another machine's rounding moves, nor take long.
QUICK = (
    "vanishing",
    "vanishing_digits",
    "measurements",
    "flow_map",
    "gates",
    "constant_error_carousel",
    "normalisation",
    "depth",
)


def summary(name: str) -> list[str]:
    return json.loads((ROOT / "figures" / f"{name}.json").read_text())["summary"]


def measured() -> dict[str, str]:
    """What the table says was measured, by the name of the figure."""
    rows = [line.split(" | ") for line in TABLE.splitlines() if "../figures/" in line]
    return {re.findall(r"figures/(\w+)\.png", row[-2])[0]: row[2] for row in rows if len(row) == 6}


def test_every_row_of_the_table_has_its_numbers():
    rows = [line for line in TABLE.splitlines() if ".png)" in line and line.startswith("|")]
    assert len(measured()) == len(rows) > 10
    assert all(NUMBER.findall(text) for text in measured().values())


@pytest.mark.parametrize("name", measured())
def test_the_numbers_of_the_table_are_in_the_record(name):
    there = NUMBER.findall("\n".join(summary(name)))
    assert [number for number in NUMBER.findall(measured()[name]) if number not in there] == []


@pytest.mark.slow  # each is a whole study at its defaults: some ten seconds
@pytest.mark.parametrize("name", QUICK)
def test_a_quick_study_gives_its_record_again(name, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    experiment, (flags, _) = importlib.import_module("figures").gallery()[name]
    config = experiment.resolve(parse(experiment, flags).given)
    with study.precision(config):
        lines = experiment.summary(experiment.run(config)).splitlines()
    assert [NUMBER.split(line) for line in lines] == [NUMBER.split(line) for line in summary(name)]
    now, then = (
        np.array(NUMBER.findall("\n".join(text)), float) for text in (lines, summary(name))
    )
    np.testing.assert_allclose(now, then, rtol=5e-3, atol=2e-3)
