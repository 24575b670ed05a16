"""Strings to be rewritten, against the calendar and against slicing; what is held out."""

import datetime

import numpy as np
import pytest
from studies import load_part

STRINGS = load_part("seq2seq.strings")
Pairs, dates, reversal, spelled = (
    getattr(STRINGS, name) for name in ("Pairs", "dates", "reversal", "spelled")
)


def read_back(pairs, symbols, texts):
    return [spelled(row, symbols) for row in getattr(pairs, texts)]


@pytest.mark.parametrize("num_formats", [1, 3])
def test_dates_are_those_of_the_calendar_and_the_parts_share_none(num_formats):
    data = dates(num_formats)
    formats = ("%d %b %Y", "%B %d, %Y", "%d.%m.%Y")
    found, used = [], set()
    for pairs in (data.train, data.test):
        sources = read_back(pairs, data.read, "sources")
        assert pairs.lengths.tolist() == [len(text) for text in sources]
        for source, target in zip(sources, read_back(pairs, data.written, "targets"), strict=True):
            form = formats["." in source and 2 or "," in source and 1 or 0]
            used.add(form)
            day = datetime.datetime.strptime(source, form).date()
            assert target == day.isoformat()
            found.append(day)
    assert len(set(found)) == len(found) == 36525 and len(data.test.lengths) == 3652
    assert len(used) == num_formats


def test_reversed_digits_are_held_out_from_those_that_are_trained_on():
    data = reversal(3, num_samples=2000)
    train, test = (read_back(part, data.read, "sources") for part in (data.train, data.test))
    assert read_back(data.test, data.written, "targets") == [text[::-1] for text in test]
    assert len(set(train) | set(test)) == len(train) + len(test) > 700 and len(test) > 70


def test_pairs_of_one_length_are_the_first_of_the_commonest():
    sources = np.array([[1, 2, 3], [4, 5, -1], [6, -1, -1], [7, 8, -1], [9, 0, -1]])
    pairs = Pairs(sources, np.array([3, 2, 1, 2, 2]), np.arange(5)[:, None])
    found = pairs.of_one_length(2)
    assert found.sources.tolist() == [[4, 5], [7, 8]] and found.targets.tolist() == [[1], [3]]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: dates(4), ValueError, "Expected 1 to 3 formats, got 4"),
        (lambda: dates(0), ValueError, "Expected 1 to 3 formats, got 0"),
        (lambda: reversal(0), ValueError, "Expected length to be at least 1, got 0"),
        (lambda: reversal(True), TypeError, "Expected length to be an integer, got True"),
        (lambda: reversal(2, num_samples=9), ValueError, "Expected num_samples to be at least 10"),
    ],
)
def test_bad_strings_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
