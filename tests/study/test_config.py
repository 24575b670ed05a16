import dataclasses
import re

import pytest
import tiny

from gradflow.study.config import LABEL_LENGTH, differences, digest, identity, label, sanitise


@pytest.mark.parametrize("value", [0, -3, float("nan"), float("inf")])
def test_a_field_that_is_not_positive_is_refused(value):
    with pytest.raises(ValueError, match=r"num_steps=.*: Expected a number above zero, .* 6"):
        tiny.Config(num_steps=value)


def test_every_number_of_a_positive_tuple_is_checked():
    with pytest.raises(ValueError, match=r"-1.0: Expected numbers above zero, .* 0.5,0.25"):
        tiny.Config(gains=(0.5, -1.0))


def test_a_field_of_the_base_is_checked_in_a_subclass():
    with pytest.raises(ValueError, match="num_seeds=0: Expected a number above zero"):
        tiny.Config(num_seeds=0)


@pytest.mark.parametrize("seed", [-1, 2**32, 2**64])
def test_a_seed_that_a_random_key_would_fold_into_another_is_refused(seed):
    with pytest.raises(ValueError, match=rf"seed={seed}: Expected a whole number from 0 to 429"):
        tiny.Config(seed=seed)
    assert tiny.Config(seed=2**32 - 1).seed == 2**32 - 1


def test_the_label_names_what_differs_from_the_defaults():
    assert label(tiny.Config()) == "default"
    changed = tiny.Config(gains=(0.5, 2.0), norm="frobenius", cells=("lstm(b=2)",), centre=True)
    assert label(changed) == "cells=lstm_b=2_,gains=0.5,2.0,norm=frobenius,centre=true"


def test_a_label_is_short_and_holds_no_path():
    name = label(tiny.Config(cells=("/home/alice/mine.py:cell", "x" * 100)))
    assert name.startswith("cells=mine.py_cell,xxx")
    assert len(name) == LABEL_LENGTH


def test_sanitised_names_are_one_plain_file_name():
    assert sanitise("a/b c:(d)é") == "a_b_c_d"
    assert sanitise("../..") == ""
    assert re.fullmatch(r"[\w.+=,-]+", sanitise("cell='lstm(b=[1, 2])' ∂h"), flags=re.ASCII)


def test_the_digest_depends_on_every_field_and_on_the_name():
    base = tiny.Config()
    others = [
        identity("tiny", base),
        identity("other", base),
        *(identity("tiny", dataclasses.replace(base, **{k: v})) for k, v in CHANGES.items()),
    ]
    assert len({digest(other) for other in others}) == len(others)
    assert {one.name for one in dataclasses.fields(base)} == CHANGES.keys()


CHANGES = {
    "seed": 1,
    "num_seeds": 9,
    "precision": "float32",
    "cells": ("lstm", "gru", "rnn"),
    "gains": (0.5, 0.25000000000000006),
    "num_steps": 7,
    "norm": "frobenius",
    "bias": 0.0,
    "centre": True,
    "log": "none",
    "kill_at": "lstm",
    "fail": "run",
}


def test_the_digest_does_not_depend_on_the_order_of_fields():
    assert digest({"a": 1, "b": (2, 3)}) == digest({"b": [2, 3], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})


def test_differences_show_both_sides_of_the_fields_that_differ():
    found = differences({"a": 1, "b": [1], "old": "x"}, {"a": 2, "b": [1], "new": None})
    assert found == [
        "a is 1 there and 2 here",
        'old is "x" there and absent here',
        "new is absent there and null here",
    ]
