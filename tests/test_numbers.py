"""The studies' numbers: the tables are those of the records, and quick records come out again."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from gradflow import study
from gradflow.study.experiment import no_claims
from gradflow.study.flags import parse
from gradflow.study.gallery import recorded

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "experiments"), str(ROOT / "experiments" / "papers")]

from _kit import gallery as found_by_file  # noqa: E402  (after the path)
from _kit import tables  # noqa: E402
from _kit.gallery import gallery, studies  # noqa: E402
from _page import CHANGED  # noqa: E402

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


def test_the_gallery_leaves_out_what_was_not_drawn(tmp_path):
    shutil.copy(ROOT / "figures" / "vanishing.json", tmp_path)
    text = tables.gallery_page(tmp_path)
    assert [line for line in text.splitlines() if line[:2] == "##"] == ["### vanishing"]
    assert "](vanishing.png)" in text


def test_every_picture_has_a_record_and_every_record_a_picture():
    folder = ROOT / "figures"
    full = {"char_lm_full"}  # the long form, drawn by hand
    assert {path.stem for path in folder.glob("*.json")} == set(gallery()) | full
    assert {path.stem for path in folder.glob("*.png")} == set(gallery()) | full


def test_every_study_claims_something():
    assert not [name for name, one in studies().items() if one.claims is no_claims]


def test_a_study_without_a_section_is_refused(monkeypatch):
    plain = dataclasses.replace(studies()["vanishing"], section="flows")
    monkeypatch.setattr(sys.modules["vanishing"], "EXPERIMENT", plain)
    with pytest.raises(
        ValueError, match="Expected the section of vanishing to be one of networks, flow, "
    ):
        found_by_file.studies.__wrapped__()


def test_only_what_lies_between_markers_is_generated():
    text = "Before.\n<!-- begin a -->\nold\n<!-- end a -->\nAfter.\n"
    filled = tables.fill(text, {"a": r"new \1"})
    assert filled == "Before.\n<!-- begin a -->\nnew \\1\n<!-- end a -->\nAfter.\n"
    assert tables.fill(filled, {"a": "old"}) == text
    with pytest.raises(ValueError, match="Expected the lines <!-- begin b --> and <!-- end b -->"):
        tables.fill(text, {"b": "new"})


def test_a_record_of_an_earlier_configuration_is_marked():
    one, picture = gallery()["vanishing"]
    record = {"config": recorded(one.resolve(parse(one, picture.flags).given))}
    assert not tables.is_earlier(one, picture, record)
    record["config"] |= {"num_steps": 3}
    assert tables.is_earlier(one, picture, record)


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
