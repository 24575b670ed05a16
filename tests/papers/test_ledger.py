"""The ledger: what it keeps, what counts as a regression, and that the committed one is whole."""

import copy
from pathlib import Path

import _ledger
import pytest
from _claims import numbers
from _page import page, picture

ROOT = Path(__file__).parents[2]
PAPERS = ROOT / "experiments" / "papers"
LEDGER = _ledger.read(ROOT / "figures" / "papers" / "ledger.json")


def claim(id, measured, exact=False):
    return numbers(id, "a number", 1.0, measured, source="Table 1", atol=0.1, exact=exact)


def entry(*claims, size="default", code="12345678"):
    return {
        "citation": "One 2000",
        "title": "A claim.",
        "size": size,
        "code": code,
        "seconds": 1.0,
        "command": "./run.sh papers/one2000",
        "figures": ["fig1"],
        "traps": ["a trap"],
        "claims": _ledger.plain_claims(claims),
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


def test_the_digest_is_of_the_code_and_not_of_its_words(tmp_path):
    def digest(source):
        (tmp_path / "a.py").write_text(source)
        return _ledger.code_digest(tmp_path / "a.py")

    code = digest(
        '"""One."""\nX = 1\n\n\ndef f():\n    """Two.\n\n    More.\n    """\n    return X\n'
    )
    assert code == digest('"""Other."""\n# why\nX = 1\ndef f():\n    """Three."""\n    return X\n')
    assert code != digest("X = 2\ndef f():\n    return X\n")
    assert code == digest("X = 1\ndef f():\n    return X\n")


def test_the_digest_counts_what_the_papers_that_train_share(tmp_path):
    def digest(source, shared):
        (tmp_path / "_training.py").write_text(shared)
        (tmp_path / "a.py").write_text(source)
        return _ledger.code_digest(tmp_path / "a.py")

    trains = "from _training import trained\n"
    assert digest(trains, "X = 1\n") != digest(trains, "X = 2\n")
    assert digest(trains, "X = 1\n") == digest(trains, '"""One."""\nX = 1\n')
    assert digest("X = 0\n", "X = 1\n") == digest("X = 0\n", "X = 2\n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: None, None),
        (lambda one: one.update(code="0"), "was measured by other code"),
        (lambda one: one["claims"][0].update(measured=""), "without a measured value"),
        (lambda one: one.update(figures=["fig2"]), "no such figure"),
        (lambda one: one["claims"].append(one["claims"][0]), "twice"),
    ],
)
def test_what_is_wrong_with_a_ledger_is_said(tmp_path, change, message):
    (tmp_path / "one2000.py").write_text("X = 1\n")
    code = _ledger.code_digest(tmp_path / "one2000.py")
    one = copy.deepcopy(entry(claim("fig1-a", 1.0), code=code))
    change(one)
    found = _ledger.inconsistencies({"one2000": one}, tmp_path)
    assert found == [] if message is None else message in found[0]


def test_an_entry_without_code_is_said(tmp_path):
    assert _ledger.inconsistencies({"gone1999": entry()}, tmp_path) == [
        "gone1999 has an entry and no file"
    ]


def test_the_committed_ledger_is_consistent():
    assert _ledger.inconsistencies(LEDGER, PAPERS) == []
    files = {path.stem for path in PAPERS.glob("[a-z]*.py")} - {"run"}
    assert files == set(LEDGER)
    for name, one in LEDGER.items():
        for figure in one["figures"]:
            assert (ROOT / "figures" / "papers" / picture(name, figure)).exists()


def test_the_page_is_the_one_that_the_ledger_gives():
    assert (ROOT / "docs" / "papers.md").read_text(encoding="utf-8") == page(LEDGER)


def test_the_page_shows_every_claim_and_trap():
    text = page({"one2000": entry(claim("fig1-a", 1.0), claim("fig1-b", 3.0))})
    assert "2 claims of 1 scripts: 1 not reproduced, 1 reproduced." in text
    assert "| `fig1-a` a number | 1 | 1 | within 0.1 | **reproduced**: off by 0" in text
    assert "![one2000-fig1.png](../figures/papers/one2000-fig1.png)" in text
    assert "- a trap" in text and "`./run.sh papers/one2000` (1 s)" in text
    there = page({"one2000": {**entry(claim("fig1-a", 1.0)), "device": "cpu"}})
    assert "`./run.sh papers/one2000` (1 s on cpu)" in there
