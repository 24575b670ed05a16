"""Zip archives as data: what is good is read, and bombs and damage are errors."""

import os
import struct
import zipfile

import numpy as np
import pytest

from gradflow.interop import archives
from gradflow.interop.archives import Budget, opened_archive


def packed(path, files, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_are_read(tmp_path, method):
    large = np.random.default_rng(0).bytes(3 * 2**20)
    path = packed(tmp_path / "a.zip", {"a/b": b"x", "empty": b"", "large": large}, method)
    with opened_archive(path) as archive:
        assert archive.names == ("a/b", "empty", "large")
        assert archive.read("a/b") == b"x" and archive.read("empty") == b""
        assert archive.read("large") == large
        with pytest.raises(ValueError, match="has no member c"):
            archive.read("c")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = packed(tmp_path / "bomb.zip", {"a": bytes(archives.FREE_SIZE + 1)})
    assert path.stat().st_size * archives.LARGEST_RATIO < archives.FREE_SIZE
    with pytest.raises(ValueError, match="If it is no zip bomb"), opened_archive(path):
        pass


def test_a_member_that_hides_its_size_is_not_unpacked_beyond_it(tmp_path):
    path = packed(tmp_path / "liar.zip", {"a": bytes(2**24)})
    content = path.read_bytes()
    path.write_bytes(content.replace(struct.pack("<I", 2**24), struct.pack("<I", 100)))
    with opened_archive(path) as archive, pytest.raises(ValueError, match="Bad CRC-32"):
        archive.read("a")


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_other_compressions_are_refused(tmp_path, method):
    with opened_archive(packed(tmp_path / "a.zip", {"a": b"x" * 100}, method)) as archive:
        with pytest.raises(ValueError, match="has compression"):
            archive.read("a")


def test_a_damaged_member_is_an_error(tmp_path):
    path = packed(tmp_path / "a.zip", {"a": b"0123456789" * 10}, zipfile.ZIP_STORED)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"0123456789", b"0123456780", 1))
    with opened_archive(path) as archive, pytest.raises(ValueError, match="Bad CRC-32"):
        archive.read("a")
    for broken in (content[:-10], content[20:], b"PK\3\4", os.urandom(100)):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="undamaged archive"), opened_archive(path) as archive:
            archive.read("a")


def test_two_members_of_one_name_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive, pytest.warns(UserWarning):
        archive.writestr("a", "1")
        archive.writestr("a", "2")
    with pytest.raises(ValueError, match="two members of the name a"):
        with opened_archive(tmp_path / "a.zip"):
            pass


def test_views_of_the_same_bytes_are_limited(tmp_path):
    path = packed(tmp_path / "a.zip", {"a": b"x"})
    budget, array = Budget(path), np.zeros(archives.FREE_SIZE // 8)
    assert budget.spend(array) is array
    with pytest.raises(ValueError, match="repeat the same bytes"):
        budget.spend(array)


def test_no_file_is_the_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError), opened_archive(tmp_path / "none.zip"):
        pass
