"""The ledger: what it keeps, what counts as a regression, and that the committed one is whole."""

import copy
from pathlib import Path

import _ledger
import pytest
from _digest import code_digest, reached
from _page import CHANGED, headline, page, picture

from gradflow.study import numbers, to_record

ROOT = Path(__file__).parents[2]
PAPERS = ROOT / "experiments" / "papers"
LEDGER = _ledger.read(ROOT / "figures" / "papers" / "ledger.json")


def claim(id, measured, exact=False, kind="published"):
    row = {"source": "Table 1", "kind": kind, "atol": 0.1, "exact": exact}
    return numbers(id, "It is a number.", 1.0, measured, **row)


def entry(*claims, size="default", code="12345678"):
    return {
        "citation": "One 2000",
        "title": "A claim.",
        "size": size,
        "code": code,
        "commit": "0123abc",
        "seconds": 1.0,
        "command": "./run.sh papers/one2000",
        "figures": ["fig1"],
        "traps": ["a trap"],
        "claims": [to_record(claim) for claim in claims],
    }


def test_a_claim_that_is_lost_is_a_regression():
    before = entry(claim("fig1-a", 1.0), claim("fig1-b", 2.0), claim("fig1-c", 1.0))
    now = [claim("fig1-a", 2.0), claim("fig1-b", 2.0)]
    first, second = _ledger.regressions(before, now, "default")
    assert first.startswith("fig1-a was reproduced and is not any more: off by 1")
    assert second == "fig1-c was reproduced and is no longer measured"
    assert _ledger.regressions(None, now, "default") == []
    assert _ledger.regressions(entry(*now), now, "default") == []


def test_a_smaller_run_answers_for_exact_claims_only():
    before = entry(claim("fig1-a", 1.0, exact=True), claim("fig1-b", 1.0))
    now = [claim("fig1-a", 2.0, exact=True), claim("fig1-b", 2.0)]
    assert [line[:6] for line in _ledger.regressions(before, now, "quick")] == ["fig1-a"]
    assert len(_ledger.regressions(before, now, "full")) == 2


def test_a_smaller_run_does_not_replace_a_larger_one_of_the_same_code():
    full = entry(size="full")
    assert not _ledger.replaces(full, "12345678", "default")
    assert _ledger.replaces(full, "12345678", "full")
    assert _ledger.replaces(full, "87654321", "default")
    assert _ledger.replaces(None, "12345678", "default")
    assert not _ledger.replaces(None, "12345678", "quick")


PAPER = """
\"\"\"{words}\"\"\"
from gradflow.flow import log_norms
from gradflow import study

SIZE = {size}

def run(config, once):
    \"\"\"{words}\"\"\"
    if config.fails:
        raise ValueError("{words}")
    return log_norms(SIZE, {extra})

def figure(dataset):
    return draw(dataset, color={color})

def claims(dataset):
    return study.numbers("a", "{words}", 1, dataset.size, atol={tolerance})

EXPERIMENT = Paper(run=run, figure=figure, claims=claims)
"""


@pytest.mark.parametrize(
    ("change", "computes"),
    [
        ({}, False),
        ({"words": "Other words."}, False),
        ({"color": "blue"}, False),
        ({"size": 2}, True),
        ({"extra": "'h'"}, True),
        ({"tolerance": 0.2}, True),  # the verdict was decided by another criterion
    ],
)
def test_the_digest_is_of_what_computes(tmp_path, change, computes):
    given = {"words": "Words.", "size": 1, "extra": "None", "color": "red", "tolerance": 0.1}
    digests = []
    for number, fields in enumerate((given, {**given, **change})):
        (tmp_path / str(number)).mkdir()
        path = tmp_path / str(number) / "one2000.py"
        path.write_text(PAPER.format(**fields))
        digests.append(code_digest(path))
    assert (digests[0] != digests[1]) == computes


def test_the_digest_follows_what_a_paper_imports():
    code = reached(PAPERS / "closed_forms.py")
    assert "closed_forms.run" in code and "closed_forms.figure_gain" not in code
    assert any(name.endswith(".log_norms") for name in code)
    assert "gradflow.cells.rnn.rnn" in code and "gradflow.cells.lstm.lstm" not in code
    assert not any(name.startswith("gradflow.study") for name in code)
    trains = reached(PAPERS / "tallec2018.py")
    assert "_training.trained" in trains and any(".train." in name for name in trains)


def test_a_file_without_an_experiment_is_refused(tmp_path):
    (tmp_path / "one2000.py").write_text("X = 1\n")
    with pytest.raises(ValueError, match="Expected EXPERIMENT = Paper.* in one2000.py, found none"):
        code_digest(tmp_path / "one2000.py")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: None, None),
        (lambda one: one["claims"][0].update(measured=[]), "without a measured value"),
        (lambda one: one["claims"][0].update(reference=None), "without a reference"),
        (lambda one: one.update(figures=["fig2"]), "no such figure"),
        (lambda one: one["claims"].append(one["claims"][0]), "twice"),
    ],
)
def test_what_is_wrong_with_a_ledger_is_reported(tmp_path, change, message):
    (tmp_path / "one2000.py").touch()
    one = copy.deepcopy(entry(claim("fig1-a", 1.0)))
    change(one)
    found = _ledger.inconsistencies({"one2000": one}, tmp_path)
    assert found == [] if message is None else message in found[0]


def test_an_entry_without_code_is_reported(tmp_path):
    assert _ledger.inconsistencies({"gone1999": entry()}, tmp_path) == [
        "gone1999 has an entry and no file"
    ]


def test_a_later_change_of_the_code_marks_the_entry(tmp_path):
    path = tmp_path / "one2000.py"
    path.write_text("def run():\n    return 1\n\nEXPERIMENT = Paper(run=run)\n")
    ledger = {"one2000": entry(claim("fig1-a", 1.0), code=code_digest(path))}
    assert _ledger.changed_since(ledger, tmp_path) == set()
    ledger["one2000"]["code"] = "0"
    assert _ledger.changed_since(ledger, tmp_path) == {"one2000"}
    assert CHANGED in page(ledger, {"one2000"}) and CHANGED not in page(ledger)


def test_the_committed_ledger_is_consistent():
    assert _ledger.inconsistencies(LEDGER, PAPERS) == []
    files = {path.stem for path in PAPERS.glob("[a-z]*.py")} - {"run"}
    assert files == set(LEDGER)
    for name, one in LEDGER.items():
        for figure in one["figures"]:
            assert (ROOT / "figures" / "papers" / picture(name, figure)).exists()


def test_the_page_shows_every_claim_and_trap():
    text = page({"one2000": entry(claim("fig1-a", 1.0), claim("fig1-b", 3.0))})
    row = "| `fig1-a` It is a number. | 1 (published) | 1 | within 0.1 | **reproduced**: off by 0"
    assert row in text
    assert "](../figures/papers/one2000-fig1.png)\n\n*one2000-fig1*, drawn by" in text
    assert "- a trap" in text
    script = "[one2000.py](../experiments/papers/one2000.py)"
    assert f"`./run.sh papers/one2000` (1 s, {script}), measured at commit 0123abc." in text
    there = page({"one2000": {**entry(claim("fig1-a", 1.0)), "device": "cpu"}})
    assert "`./run.sh papers/one2000` (1 s on cpu, [" in there


def test_the_headline_counts_published_claims_alone():
    ledger = {
        "one2000": entry(
            claim("fig1-a", 1.0),
            claim("fig1-b", 3.0),
            claim("fig1-c", 1.0, kind="derived"),
            claim("fig1-d", 1.0, kind="regression"),
        )
    }
    assert headline(ledger) == (
        "Of 2 published claims, 1 are reproduced, 0 are qualitatively reproduced and 1 are not "
        "reproduced."
    )
    text = page(ledger)
    assert "| published | 2 | 1 | 0 | 1 |" in text
    assert "| derived | 1 | 1 | 0 | 0 |" in text and "| regression | 1 | 1 | 0 | 0 |" in text
