"""Inputs from files: windows of the data, and an error for every malformed file."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradflow.tasks import make_inputs

TEXT = "Ein Bär, zwei Bären:\nder Rest ist 鏡."


def inputs_of(spec, num_sequences, num_steps, seed=0):
    key = jax.random.key(seed)
    return np.asarray(
        make_inputs(spec, key, num_sequences=num_sequences, num_steps=num_steps, input_size=99)
    )


def written(path, content):
    path.write_bytes(content) if isinstance(content, bytes) else np.save(path, content)
    return path


def decoded(one_hot, text):
    vocabulary = np.array(sorted(set(text)))
    assert set(np.unique(one_hot)) == {0.0, 1.0} and one_hot.shape[-1] == len(vocabulary)
    np.testing.assert_array_equal(one_hot.sum(axis=-1), 1)
    return ["".join(vocabulary[row]) for row in one_hot.argmax(axis=-1)]


def test_text_windows_are_sampled_without_replacement_if_there_are_enough(tmp_path):
    path = written(tmp_path / "bear: a story.txt", TEXT.encode())
    starts = len(TEXT) - 6 + 1
    windows = decoded(inputs_of(f"text:{path}", starts, 6), TEXT)
    all_windows = [TEXT[i : i + 6] for i in range(starts)]
    assert sorted(windows) == sorted(all_windows) and windows != all_windows
    assert set(decoded(inputs_of(f"text:{path}", starts + 9, 6), TEXT)) < set(all_windows)


def test_text_windows_depend_on_the_key(tmp_path):
    path = written(tmp_path / "t.txt", TEXT.encode())
    first, again, other = (inputs_of(f"text:{path}", 4, 5, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_text_is_read_without_byte_order_mark_and_with_unix_newlines(tmp_path):
    path = written(tmp_path / "t.txt", b"\xef\xbb\xbfab\r\nba")
    assert decoded(inputs_of(f"text:{path}", 1, 5), "ab\nba") == ["ab\nba"]


def test_series_is_standardised_over_the_whole_column(tmp_path):
    close = np.array([3.0, 1e6, -7.5, 2.0, 40.0])
    lines = [f'"day, {i}",{value!r}' for i, value in enumerate(close.tolist())]
    path = written(tmp_path / "a:b.csv", ("day, Close \n\n" + "\n".join(lines) + "\n\n").encode())
    expected = (close - np.sum(close) / 5) / np.sqrt(np.sum((close - np.sum(close) / 5) ** 2) / 5)
    whole = inputs_of(f"series:{path}:Close", 1, 5)
    assert whole.shape == (1, 5, 1)
    np.testing.assert_allclose(whole[0, :, 0], expected, rtol=1e-12)
    windows = inputs_of(f"series:{path}:Close", 4, 2)[..., 0]
    pairs = np.stack([expected[:-1], expected[1:]], axis=1)
    by_first = [rows[np.argsort(rows[:, 0])] for rows in (windows, pairs)]
    np.testing.assert_allclose(*by_first, rtol=1e-12)


def test_series_of_huge_values_does_not_overflow(tmp_path):
    path = written(tmp_path / "s.csv", b"x\n1e300\n-1e300\n1e300\n-1e300\n")
    np.testing.assert_allclose(inputs_of(f"series:{path}:x", 1, 4)[0, :, 0], [1, -1, 1, -1])


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int16, bool])
def test_npy_gives_the_first_sequences_and_steps_in_order(tmp_path, dtype):
    array = np.random.default_rng(0).normal(size=(4, 7, 3), scale=3).astype(dtype)
    path = written(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(inputs_of(f"npy:{path}", 4, 7), array.astype(float))
    np.testing.assert_array_equal(inputs_of(f"npy:{path}", 2, 5, 1), array[:2, :5].astype(float))


def test_npy_of_two_axes_is_one_sequence(tmp_path):
    array = np.random.default_rng(0).normal(size=(7, 3))
    path = written(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(inputs_of(f"npy:{path}", 1, 6), array[None, :6])
    np.save(path, np.zeros((7, 0)))
    assert inputs_of(f"npy:{path}", 1, 6).shape == (1, 6, 0)


def test_files_give_the_default_float_type(tmp_path, key):
    text = written(tmp_path / "t.txt", TEXT.encode())
    series = written(tmp_path / "s.csv", b"x\n1\n2\n3\n")
    array = written(tmp_path / "a.npy", np.eye(3))
    for spec in (f"text:{text}", f"series:{series}:x", f"npy:{array}"):
        sizes = {"num_sequences": 1, "num_steps": 2, "input_size": 1}
        assert make_inputs(spec, key, **sizes).dtype == jnp.float64
        with jax.enable_x64(False):
            assert make_inputs(spec, key, **sizes).dtype == jnp.float32


def test_home_directory_is_expanded(tmp_path, monkeypatch):
    written(tmp_path / "a.npy", np.eye(3))
    monkeypatch.setenv("HOME", str(tmp_path))
    np.testing.assert_array_equal(inputs_of("npy:~/a.npy", 1, 3), np.eye(3)[None])


@pytest.mark.parametrize("form", ["text:{}", "series:{}:x", "npy:{}"])
def test_missing_or_empty_file_raises(tmp_path, form):
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(
            ValueError, match=f"Expected a file at '{path}' for {form[:4]}.*relative"
        ):
            inputs_of(form.format(path), 1, 1)
    empty = written(tmp_path / "empty", b"")
    with pytest.raises(ValueError, match=f"Expected data in '{empty}', got an empty file"):
        inputs_of(form.format(empty), 1, 1)


@pytest.mark.parametrize("form", ["text:{}", "series:{}:x"])
def test_binary_file_as_text_raises(tmp_path, form):
    path = written(tmp_path / "b", b"x\n12\xff\x00")
    with pytest.raises(ValueError, match="Expected UTF-8 text in .* got the byte 0xff"):
        inputs_of(form.format(path), 1, 1)


def test_text_shorter_than_num_steps_raises(tmp_path):
    path = written(tmp_path / "t.txt", b"abc")
    with pytest.raises(
        ValueError, match="Expected num_steps of at most 3, the number of characters in .*, got 4"
    ):
        inputs_of(f"text:{path}", 1, 4)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"day,Close\n1,2\n", "Expected a column of .*, which are day, Close, got 'x'"),
        (
            b"x\n1\n\nhigh\n",
            "Expected a finite number in row 4 of .*header is row 1.*got 'high'",
        ),
        (b"day,x\n1,2\n2,\n", "Expected a finite number in row 3 of .*, got ''. Correct or remove"),
        (b"day,x\n1,2\n2\n", "Expected 2 fields in row 3 of .*, as in row 1, got 1. Write dec"),
        (b"x\n1\nnan\n", "Expected a finite number in row 3 of .*, got 'nan'"),
        (b"x\n-inf\n1\n", "Expected a finite number in row 2 of .*, got '-inf'"),
        (b"x\n0.1\n0.1\n0.1\n", "Expected the column 'x' of .* to vary, got 3 rows of one value"),
        (b"x\n", "Expected rows of numbers in .*, got none"),
        (b"x,x\n1,2\n3,4\n", "which are x, x, got 'x', the name of several. Rename all but one"),
        (b"x;y\n1,5;2\n", "Expected a finite number in row 2 .*, got '1,5'"),
        (b"y,x\n1,1,5\n", "Expected 2 fields in row 2 .*, got 3. Write decimal points"),
        (b"x\n1,000\n", "Expected 1 fields in row 2 .*, got 2. Write decimal points"),
        (b"x\n1_000\n", "Expected a finite number in row 2 of .*, got '1_000'"),
        (b'x,y\n"1,000",2\n', "Expected a finite number in row 2 of .*, got '1,000'"),
        (b'x,y\n1,"a\n2,b\n3,c\n', "cannot be read as CSV: unexpected end of data. Close any"),
        (b'x,y\n1,"a"b\n', "cannot be read as CSV: ',' expected after '\"'. Close any"),
        (b"x\n1\n2\n", "Expected num_steps of at most 2, the number of rows in .*, got 3"),
        (
            b'x\n1\n"' + b"2" * 140_000,
            "cannot be read as CSV: field larger .* Close any open quote",
        ),
    ],
)
def test_bad_table_raises(tmp_path, content, message):
    path = written(tmp_path / "s.csv", content)
    with pytest.raises(ValueError, match=message):
        inputs_of(f"series:{path}:x", 1, 3)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"hello, this is no array", "Expected an array in .*magic string.*numpy.save"),
        (np.array([{"a": 1}], dtype=object), "Expected real numbers in .*, got object"),
        (np.zeros((2, 2), complex), "Expected real numbers in .*, got complex128"),
        (np.array([["a"]]), "Expected real numbers in .*, got <U1"),
        (np.zeros(3), r"\(T, input\) or \(N, T, input\) in .*, got shape \(3,\)"),
        (
            np.zeros((1, 1, 1, 1)),
            r"Expected an array of shape .*, got shape \(1, 1, 1, 1\). Reshape it",
        ),
        (
            np.zeros((9, 2)),
            r"num_sequences of at most 1, .*, read as \(T, input\) = \(9, 2\), got 2",
        ),
        (
            np.zeros((2, 2, 5)),
            r"num_steps of at most 2, .*, read as \(N, T, input\) = \(2, 2, 5\), got 3\. Reduce",
        ),
        (np.array([[[0.0]] * 3, [[0.0], [np.nan], [0.0]]]), r"got nan at .* = \(1, 1, 0\)"),
        (np.full((2, 3, 2), -np.inf), r"Expected finite numbers in .*got -inf.*\(0, 0, 0\)"),
    ],
)
def test_bad_array_raises(tmp_path, content, message):
    path = written(tmp_path / "a.npy", content)
    with pytest.raises(ValueError, match=message):
        inputs_of(f"npy:{path}", 2, 3)


def npy(header, data=b"", version=1):
    """The bytes of an array with a header of one's own."""
    text = header.encode()
    return b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(2, "little") + text + data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 1)}", bytes(8)),
            r"Expected 8000000000000 bytes in .* of shape \(1000000000000, 1\), got 8. Save one",
        ),
        (npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -1)}", bytes(8)), "got 8"),
        (npy("{'descr': '<f8', 'fortran_order': False, 'shape': (2, 2)}", bytes(40)), "got 40"),
        (npy("{'descr': '<f8', 'fortran_order': False, 'shape': (2, "), "Expected an array in"),
        (npy("(" * 9000), "Expected an array in .* got: .* Save one array of numbers"),
        (npy('"""'), "Expected an array in"),
        (npy("{'descr': [[]], 'fortran_order': False, 'shape': (2, 2)}"), "Expected an array in"),
        (npy("{}", version=3), "got: version \\(3, 0\\) of the format, which is not for arrays"),
        (npy("{}", version=9), "Expected an array in"),
        (b"\x93NUMPY\1\0\xff\xff{", "Expected an array in"),
    ],
)
def test_damaged_header_raises_in_one_line(tmp_path, content, message):
    path = written(tmp_path / "a.npy", content)
    with pytest.raises(ValueError, match=message) as error:
        inputs_of(f"npy:{path}", 1, 2)
    assert len(str(error.value).splitlines()) == 1 and len(str(error.value)) < 1000


def test_only_the_part_that_is_used_is_read(tmp_path):
    np.lib.format.open_memmap(tmp_path / "a.npy", "w+", shape=(2**29 + 1, 1))  # a hole
    np.testing.assert_array_equal(inputs_of(f"npy:{tmp_path}/a.npy", 1, 2), np.zeros((1, 2, 1)))
    with pytest.raises(
        ValueError, match=r"at most 4 GiB from .* = \(1, 536870913, 1\). Reduce num_seq"
    ):
        inputs_of(f"npy:{tmp_path}/a.npy", 1, 2**29 + 1)


def test_order_of_the_axes_in_the_file_does_not_matter(tmp_path):
    array = np.asfortranarray(np.arange(12.0).reshape(4, 3))
    path = written(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(inputs_of(f"npy:{path}", 1, 3), array[None, :3])


def test_text_with_many_distinct_characters_takes_the_memory_of_its_windows_alone(tmp_path):
    text = "".join(map(chr, range(0x20, 0xD800)))
    path = written(tmp_path / "t.txt", text.encode())
    windows = inputs_of(f"text:{path}", 2, 3)
    assert windows.shape == (2, 3, len(text))
    assert all("".join(text[code] for code in row.argmax(-1)) in text for row in windows)
    with pytest.raises(
        ValueError, match="got 4117.5 GiB .* = .10000, 1000, 55264.. Reduce num_seq"
    ):
        inputs_of(f"text:{path}", 10_000, 1000)


def test_a_long_text_is_sampled(tmp_path):
    path = written(tmp_path / "t.txt", b"to be or not to be " * 1_000_000)
    # About 1 s; sorting all starts took over a minute.
    assert inputs_of(f"text:{path}", 2, 100).shape == (2, 100, 7)


def test_numbers_beyond_the_range_of_the_float_type_raise(tmp_path):
    path = written(tmp_path / "a.npy", np.full((2, 1), 1e300))
    assert inputs_of(f"npy:{path}", 1, 2).max() == 1e300
    with jax.enable_x64(False), pytest.raises(ValueError, match="got inf at"):
        inputs_of(f"npy:{path}", 1, 2)


def test_non_finite_numbers_outside_of_the_requested_part_are_ignored(tmp_path):
    path = written(tmp_path / "a.npy", np.array([[1.0], [2.0], [np.nan]]))
    np.testing.assert_array_equal(inputs_of(f"npy:{path}", 1, 2), [[[1.0], [2.0]]])
