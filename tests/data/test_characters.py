"""Texts as character codes, divided into training streams and test segments."""

import re

import numpy as np
import pytest

from gradflow.data.characters import as_segments, as_streams, encode, read_characters

TEXT = "to be, or not to be:\nthat is the question"


def written(path, data):
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def test_text_is_encoded_by_its_sorted_characters(tmp_path):
    found = read_characters(written(tmp_path / "t", "\ufeff" + TEXT.replace("\n", "\r\n") + " é"))
    assert found.alphabet == "".join(sorted(set(TEXT + "é")))
    assert "".join(found.alphabet[code] for code in found.codes) == TEXT + " é"
    np.testing.assert_array_equal(encode(TEXT + " é", found.alphabet), found.codes)
    assert found.num_trained == len(found.codes) - 4


def test_streams_are_consecutive_pieces_of_the_text():
    streams = as_streams(np.arange(11), 3)
    np.testing.assert_array_equal(streams, [[0, 3, 6], [1, 4, 7], [2, 5, 8]])
    with pytest.raises(ValueError, match="for each of 6 streams, got 11 in total"):
        as_streams(np.arange(11), 6)


@pytest.mark.parametrize(("first", "num_segments", "warm_up"), [(10, 3, 2), (3, 4, 6), (5, 1, 1)])
def test_every_character_of_the_tail_is_predicted_once_from_its_predecessors(
    first, num_segments, warm_up
):
    codes = np.arange(23)
    found = as_segments(codes, first, num_segments, warm_up)
    assert not found.weights[:warm_up].any()
    np.testing.assert_array_equal(np.sort(found.codes[found.weights]), codes[first:])
    before = found.codes[:-1][found.weights[1:]]
    np.testing.assert_array_equal(before, found.codes[1:][found.weights[1:]] - 1)


def test_bad_text_raises(tmp_path):
    with pytest.raises(ValueError, match=r"'none' in .* no such folder. Download it from "
                       r"https://github.com/karpathy/char-rnn"):  # fmt: skip
        read_characters(tmp_path / "nowhere" / "none")
    with pytest.raises(ValueError, match="Expected UTF-8 text in"):
        read_characters(written(tmp_path / "b", b"\xff\xfe" * 20))
    with pytest.raises(ValueError, match="Expected a text of at least 20 characters .* got 5"):
        read_characters(written(tmp_path / "s", "short"))
    with pytest.raises(
        ValueError, match=re.escape("Expected characters of 'abc', ") + ".* got 'd'"
    ):
        encode("add", "abc")
