"""The studies' numbers: the tables are those of the records, and quick records come out again."""

import json
from pathlib import Path

import numpy as np
import pytest
from _kit import tables
from _kit.gallery import gallery, studies
from _page import CHANGED

from gradflow import study
from gradflow.study.flags import parse

ROOT = Path(__file__).parents[1]

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


def claims_of(name: str) -> list[study.Claim]:
    record = json.loads((ROOT / "figures" / f"{name}.json").read_text())
    return [study.from_record(claim) for claim in record["claims"]]


def test_the_documents_are_those_of_the_records():
    for path, text in tables.documents().items():
        # A change of the code may mark an entry as older than it; the mark fails no test.
        committed = path.read_text(encoding="utf-8").replace(CHANGED, "")
        assert committed == text.replace(CHANGED, ""), f"{path} is old: ./run.sh tables"


def test_every_picture_has_a_record_and_every_record_a_picture():
    folder = ROOT / "figures"
    full = {"char_lm_full"}  # the long form, drawn by hand
    assert {path.stem for path in folder.glob("*.json")} == set(gallery()) | full
    assert {path.stem for path in folder.glob("*.png")} == set(gallery()) | full


def test_every_study_claims_something():
    # None may join this list.
    missing = {name for name, one in studies().items() if one.claims is study.experiment.no_claims}
    assert missing <= WITHOUT_CLAIMS


def test_a_section_that_is_unknown_is_refused(monkeypatch):
    pass


@pytest.mark.slow  # each is a whole study at its defaults: some ten seconds
@pytest.mark.parametrize("name", QUICK)
def test_a_quick_study_gives_its_record_again(name):
    experiment, (flags, _) = gallery()[name]
    config = experiment.resolve(parse(experiment, flags).given)
    with study.precision(config):
        now = experiment.claims(experiment.run(config))
    then = claims_of(name)
    assert [(claim.id, claim.verdict) for claim in now] == [(c.id, c.verdict) for c in then]
    assert [[number.name for number in claim.measured] for claim in now] == [
        [number.name for number in claim.measured] for claim in then
    ]
    numbers = (
        [[number.value, *(number.interval or ())] for claim in claims for number in claim.measured]
        for claims in (now, then)
    )
    for new, old in zip(*numbers, strict=True):
        np.testing.assert_allclose(new, old, rtol=5e-3, atol=2e-3)
