"""The idx reader: arrays against the format's description, and damaged files."""

import gzip
import struct

import numpy as np
import pytest

from gradflow.data.idx import read_idx, read_mnist

PIXELS = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4) * 10
LABELS = np.array([7, 0], np.uint8)
NAMES = ("images-idx3-ubyte", "labels-idx1-ubyte")


def idx(array, *, kind=8):
    """The bytes of a file, by the description of the format."""
    header = bytes([0, 0, kind, array.ndim]) + b"".join(struct.pack(">I", n) for n in array.shape)
    return header + array.tobytes()


def put(folder, name, content):
    packed = gzip.compress(content) if name.endswith(".gz") else content
    (folder / name).write_bytes(packed)
    return folder / name


@pytest.fixture
def folder(tmp_path):
    """A compressed training set, and an uncompressed test set in reverse order."""
    for name, array in zip(NAMES, (PIXELS, LABELS), strict=True):
        put(tmp_path, f"train-{name}.gz", idx(array))
        put(tmp_path, f"t10k-{name}", idx(array[::-1]))
    return tmp_path


def test_both_splits_are_read_with_and_without_compression(folder):
    for split, step in (("train", 1), ("test", -1)):
        found = read_mnist(str(folder), split)
        np.testing.assert_array_equal(found.pixels, PIXELS[::step])
        np.testing.assert_array_equal(found.labels, LABELS[::step])
        assert found.pixels.dtype == found.labels.dtype == np.uint8


@pytest.mark.parametrize(("kind", "dtype"), [(9, "i1"), (11, ">i2"), (12, ">i4"), (14, ">f8")])
def test_numbers_of_every_type_are_read_as_big_endian(tmp_path, kind, dtype):
    array = np.array([-3, 5, 100]).astype(dtype)
    found = read_idx(put(tmp_path, "numbers", idx(array, kind=kind)), num_axes=1)
    np.testing.assert_array_equal(found, [-3, 5, 100])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Expected an idx file of 1 axes, .* got nothing in"),
        (b"\x89PNG1234", "0, 0, 8, 1, got 137, 80, 78, 71 in"),
        (idx(PIXELS), "Expected an idx file of 1 axes, .* got 0, 0, 8, 3 in"),
        (idx(LABELS, kind=10), "an idx file .* got 0, 0, 10, 1 in"),
        (idx(LABELS)[:-1], r"Expected 2 bytes after .* of shape \(2,\), got 1. Download"),
        (idx(LABELS) + b"x", "Expected 2 bytes .* got more than 2. Download"),
        (idx(LABELS)[:6], "Expected 0 bytes after the header .* got 0. Download"),
    ],
)
def test_malformed_file_raises(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        read_idx(put(tmp_path, "file", content), num_axes=1)


def test_labels_and_images_of_other_types_raise(folder):
    for name, array, kind in (
        (NAMES[1], np.array([-1, 1], np.int8), 9),
        (NAMES[0], PIXELS.astype(">f4"), 13),
    ):
        put(folder, f"t10k-{name}", idx(array, kind=kind))
        with pytest.raises(ValueError, match=f"Expected unsigned bytes in .*{name}', got "):
            read_mnist(folder, "test")


def test_a_compressed_file_is_read_only_as_far_as_its_header_says(tmp_path):
    bomb = gzip.compress(idx(LABELS) + bytes(100 << 20), 1)
    with pytest.raises(ValueError, match="Expected 2 bytes .*, got more than 2"):
        read_idx(put_packed(tmp_path, bomb), num_axes=1)
    claim = gzip.compress(bytes([0, 0, 8, 1]) + struct.pack(">I", 2**32 - 1))
    with pytest.raises(ValueError, match="at most 1073741824 bytes in .* of 4294967295 bytes"):
        read_idx(put_packed(tmp_path, claim), num_axes=1)


def put_packed(folder, packed):
    (folder / "a.gz").write_bytes(packed)
    return folder / "a.gz"


@pytest.mark.parametrize("damage", ["cut", "changed", "not compressed"])
def test_corrupt_gzip_file_raises(folder, damage):
    path = folder / f"train-{NAMES[0]}.gz"
    packed = bytearray(path.read_bytes())
    packed[-6] ^= 1  # within the checksum
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[:-9], "changed": packed, "not compressed": idx(PIXELS)}[damage])
    with pytest.raises(ValueError, match="Expected a gzip file at .*truncated or corrupt.*lecun"):
        read_mnist(folder, "train")


def test_missing_file_raises_with_its_source(folder):
    (folder / f"t10k-{NAMES[1]}").unlink()
    with pytest.raises(ValueError, match=r"'t10k-labels-idx1-ubyte.gz' in .*lecun.com"):
        read_mnist(folder, "test")
    with pytest.raises(
        ValueError, match="Expected a folder with the file 'train-images-idx3-ubyte.gz'"
    ):
        read_mnist(None, "train")


def test_different_numbers_of_images_and_labels_raise(folder):
    put(folder, f"train-{NAMES[1]}.gz", idx(LABELS[:1]))
    with pytest.raises(ValueError, match="Expected a label for each image, got 2 images"):
        read_mnist(folder, "train")
    put(folder, f"train-{NAMES[1]}.gz", idx(LABELS + 3))
    with pytest.raises(
        ValueError, match="Expected images of the classes 0 to 9 .* and the label 10"
    ):
        read_mnist(folder, "train")
    for name, array in zip(NAMES, (PIXELS, LABELS), strict=True):
        put(folder, f"train-{name}.gz", idx(array[:0]))
    with pytest.raises(ValueError, match=r"got shape \(0, 3, 4\) and the label None"):
        read_mnist(folder, "train")
    with pytest.raises(ValueError, match="Expected split to be 'train' or 'test', got 'val'"):
        read_mnist(folder, "val")
