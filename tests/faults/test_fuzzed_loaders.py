"""Arbitrary bytes and damaged files, for every reader of files."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loaders import LOADERS

PIECES = [b"\0", b"\xff", b'"', b"'", b",", b";", b"\n", b"\r", b"(" * 300, b"1e999", b"-1", b"nan"]
PIECES += [b"9" * 30, b":", b"\\", b"__import__", b"True", b"\xef\xbb\xbf", b"\x80\x00\x00\x00"]


@st.composite
def damaged(draw, example: bytes) -> bytes:
    """The example with some bytes changed, removed, inserted or repeated."""
    data = bytearray(example)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.integers(0, 12)))
        piece = st.sampled_from(PIECES) | st.binary(max_size=4) | st.just(bytes(data[start:stop]))
        data[start : draw(st.sampled_from([start, stop, len(data)]))] = draw(piece)
    return bytes(data)


@pytest.mark.parametrize("name", LOADERS)
def test_a_good_file_is_read(tmp_path, name):
    attack = LOADERS[name]
    assert attack.run(attack.example, tmp_path) == "survived"


@pytest.mark.parametrize("name", LOADERS)
def test_any_bytes_give_the_right_value_or_an_error_of_one_line(name):
    attack = LOADERS[name]

    # Some mutations of a text are still good; an example takes milliseconds, but may compile.
    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(damaged(attack.example) | st.binary(max_size=200))
    def holds(data: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            assert attack.run(data, Path(folder)) in ("survived", "refused")

    holds()
