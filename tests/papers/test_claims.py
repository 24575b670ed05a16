"""The verdicts: what counts as reproduced, in shape only, and not."""

import numpy as np
import pytest
from _claims import OWN, numbers, statement, verdicts

ROW = {"id": "fig1-a", "what": "a number", "source": "Table 1"}


@pytest.mark.parametrize(
    ("published", "measured", "bounds", "verdict"),
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
    ],
)
def test_numbers_are_compared_each_with_its_own_bound(published, measured, bounds, verdict):
    assert numbers(**ROW, published=published, measured=measured, **bounds).verdict == verdict


def test_a_number_that_is_off_can_still_have_the_shape():
    for holds, verdict in ((True, "reproduced in shape only"), (False, "not reproduced")):
        claim = numbers(**ROW, published=1, measured=2, atol=0.5, shape=("it rises", holds))
        assert claim.verdict == verdict and "off by 1 where 0.5 is allowed" in claim.reason
    within = numbers(**ROW, published=1, measured=1.1, atol=0.5, shape=("it rises", False))
    assert within.verdict == "reproduced"


def test_the_reason_names_the_worst_number():
    claim = numbers(**ROW, published=[1, 10], measured=[1.5, 10.6], rtol=0.1)
    assert claim.reason == "off by 0.5 at worst where 0.1 is allowed"
    assert claim.tolerance == "within 0.1 relative"


@pytest.mark.parametrize(
    ("holds", "picture", "verdict"),
    [
        (True, False, "reproduced"),
        (True, True, "reproduced in shape only"),
        (False, False, "not reproduced"),
        (False, True, "not reproduced"),
        (np.bool_(True), False, "reproduced"),
    ],
)
def test_a_statement_is_decided_by_its_condition(holds, picture, verdict):
    claim = statement(
        **ROW, published="falls", measured=0.5, condition="it falls", holds=holds, picture=picture
    )
    assert claim.verdict == verdict and "it falls" in claim.reason and claim.measured == "0.5"


def test_a_reference_of_our_own_is_marked():
    row = {**ROW, "source": OWN + "a closed form"}
    assert numbers(**row, published=1, measured=1).shown == "1 (own)"
    assert numbers(**ROW, published=1, measured=1).shown == "1"
    assert "1 (own)" in verdicts([numbers(**row, published=1, measured=1)])
