"""A few attacks on records of each kind; a larger number is for a run by hand."""

import random

import pytest
import records

PROCESSES = (
    records.killed,
    records.two_at_once,
    records.full_disk,
    records.killed_training,
)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "attack", [a for a in records.ATTACKS.values() if a not in PROCESSES], ids=lambda a: a.__name__
)
def test_a_record_withstands_an_attack(attack, seed, tmp_path):
    assert attack(random.Random(seed), tmp_path) in ("survived", "refused")


@pytest.mark.slow  # each starts processes that are killed or limited, and resumes what they did
@pytest.mark.parametrize("attack", PROCESSES, ids=lambda a: a.__name__)
def test_a_record_withstands_an_attack_on_its_process(attack, tmp_path):
    assert attack(random.Random(0), tmp_path) in ("survived", "refused")
