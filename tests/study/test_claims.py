"""The verdicts: what counts as supported or reproduced, and what a record keeps of a claim."""

import dataclasses
import json

import numpy as np
import pytest

from gradflow.statistics import Estimate
from gradflow.study import Measured, claim, derived, from_record, numbers, statement, to_record
from gradflow.study.store import to_json

ROW = {"id": "fig1-a", "statement": "It is a number.", "source": "Table 1"}
OWN = {"id": "a", "statement": "It falls.", "measured": 0.5, "criterion": "it falls"}


@pytest.mark.parametrize(
    ("holds", "verdict", "reason"),
    [
        (True, "supported", "it falls"),
        (np.bool_(True), "supported", "it falls"),
        (False, "not supported", "it does not hold that it falls"),
        (np.bool_(False), "not supported", "it does not hold that it falls"),
        (None, "inconclusive", "the runs do not decide whether it falls"),
    ],
)
def test_a_claim_of_a_study_is_decided_by_its_criterion(holds, verdict, reason):
    found = claim(**OWN, holds=holds)
    assert (found.verdict, found.reason, found.reference) == (verdict, reason, None)
    assert claim(**OWN, holds=holds, reason="so").reason == "so"


@pytest.mark.parametrize(
    ("reference", "measured", "bounds", "verdict"),
    [
        (1.0, 1.009, {"rtol": 0.01}, "reproduced"),
        (1.0, 1.011, {"rtol": 0.01}, "not reproduced"),
        (1.0, 1.011, {"rtol": 0.01, "atol": 0.1}, "reproduced"),
        (-2.0, -2.03, {"rtol": 0.01}, "not reproduced"),
        (-2.0, -2.01, {"rtol": 0.01}, "reproduced"),
        (1.0, float("nan"), {"atol": 1e9}, "not reproduced"),
        (1.0, 1.0, {}, "reproduced"),
        ([1.0, 100.0], [1.0, 100.5], {"rtol": 0.01}, "reproduced"),
        ([1.0, 100.0], [1.5, 100.0], {"rtol": 0.01}, "not reproduced"),
        (0.0, [0.0, -0.2], {"atol": 0.1}, "not reproduced"),
        (1.0, {"a": 1.0, "b": 1.2}, {"atol": 0.1}, "not reproduced"),
        (1.0, [Measured("a", 1.0), Measured("b", 1.05)], {"atol": 0.1}, "reproduced"),
        ([[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0], [3.0, 4.0]], {}, "reproduced"),
        (1.0, 1.00004, {"atol": 1e-5}, "not reproduced"),  # rounded to 4 digits they are equal
    ],
)
def test_numbers_are_compared_each_with_its_own_bound(reference, measured, bounds, verdict):
    assert numbers(**ROW, reference=reference, measured=measured, **bounds).verdict == verdict


def test_a_number_that_is_off_can_still_have_the_shape():
    for holds, verdict in ((True, "qualitatively reproduced"), (False, "not reproduced")):
        found = numbers(**ROW, reference=1, measured=2, atol=0.5, shape=("it rises", holds))
        assert found.verdict == verdict and "off by 1 where 0.5 is allowed" in found.reason
    within = numbers(**ROW, reference=1, measured=1.1, atol=0.5, shape=("it rises", False))
    assert within.verdict == "reproduced"


def test_the_reason_names_the_worst_number():
    found = numbers(**ROW, reference=[1, 10], measured=[1.5, 10.6], rtol=0.1)
    assert found.reason == "off by 0.5 at worst where 0.1 is allowed"
    assert found.criterion == "within 0.1 relative"


@pytest.mark.parametrize(
    ("holds", "picture", "verdict"),
    [
        (True, False, "reproduced"),
        (True, True, "qualitatively reproduced"),
        (False, False, "not reproduced"),
        (False, True, "not reproduced"),
        (np.bool_(True), False, "reproduced"),
    ],
)
def test_a_statement_is_decided_by_its_criterion(holds, picture, verdict):
    found = statement(
        **ROW, reference="falls", measured=0.5, criterion="it falls", holds=holds, picture=picture
    )
    assert found.verdict == verdict and "it falls" in found.reason and found.shown == "0.5"


def test_numbers_are_shown_by_name_with_interval_and_unit():
    measured = (
        Measured.of("decay", Estimate(0.62961, 0.62198, 0.63734)),
        Measured("length", 3.0, unit="steps"),
        Measured("length", 20.0, unit="steps"),
    )
    found = claim("a", "It falls.", True, measured=measured, criterion="it falls")
    assert found.shown == "decay 0.6296 [0.622, 0.6373]; length 3 steps / 20 steps"
    assert found.line() == f"supported: It falls. (measured: {found.shown})"
    too_small = f"quick: too small to judge: It falls. (measured: {found.shown})"
    assert found.line(quick=True) == too_small
    assert dataclasses.replace(found, exact=True).line(quick=True) == found.line()
    published = numbers(**ROW, reference=1, measured=1)
    assert published.line().endswith("(measured: 1; published: 1)")


def test_numbers_by_name_can_be_estimates_of_one_unit():
    found = {"decay": Estimate(0.5, 0.25, 0.75), "lags": [1, 2]}
    shown = claim("a", "It falls.", True, measured=found, criterion="it falls", unit="steps").shown
    assert shown == "decay 0.5 [0.25, 0.75] steps; lags 1 steps / 2 steps"


def test_a_derived_value_holds_at_every_size():
    found = derived(**ROW, reference=1, measured=1.01, rtol=0.1)
    assert found.exact and found.reference is not None and found.reference.kind == "derived"
    assert found == numbers(**ROW, reference=1, measured=1.01, rtol=0.1, kind="derived", exact=True)


def test_a_record_gives_the_claim_again():
    measured = [Measured("a", np.inf), Measured("b", np.nan, (-np.inf, 0.12345678), "nats")]
    for found in (
        claim("a", "It falls.", True, measured=measured, criterion="it falls", exact=True),
        numbers(**ROW, reference=1, measured=measured, kind="derived"),
    ):
        again = from_record(json.loads(to_json(to_record(found))))
        assert repr(again) == repr(found)  # NaN is not equal to itself
        assert again.measured[1].interval == (-np.inf, 0.1235)
