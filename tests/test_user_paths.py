"""Paths as people type them, links that lead out of a folder, atomic writes, and free room."""

import os
import subprocess
import sys

import jax
import pytest

from gradflow.data.files import official_file
from gradflow.data.idx import read_mnist
from gradflow.data.imdb import read_imdb
from gradflow.paths import check_inside, check_room, user_path, write_bytes
from gradflow.tasks import make_inputs

KEY = jax.random.key(0)


def test_the_home_directory_is_that_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/a/b") == tmp_path / "a" / "b"
    assert str(user_path("a/~b")) == "a/~b"


@pytest.mark.parametrize(
    "use",
    [
        user_path,
        lambda path: official_file(path, "a", source="the web"),
        lambda path: read_imdb(path, "train"),
        lambda path: read_mnist(path, "train"),
        lambda path: make_inputs(f"npy:{path}", KEY, num_sequences=1, num_steps=1, input_size=1),
    ],
)
def test_the_home_directory_of_nobody_raises(use):
    with pytest.raises(ValueError, match="^Expected the home directory of a known user, got '~no"):
        use("~nobody-of-this-name/x")


@pytest.fixture
def outside(tmp_path):
    """A file that is not part of the data, and the folder of the data beside it."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "data").mkdir()
    return tmp_path / "secret"


def test_a_file_of_a_folder_is_found_in_it(outside):
    folder = outside.parent / "data"
    (folder / "a").write_text("data")
    (folder / "link").symlink_to("a")
    assert official_file(folder, "link", source="the web") == folder / "link"
    (outside.parent / "linked").symlink_to(folder)
    assert check_inside(outside.parent / "linked" / "a", outside.parent / "linked")


@pytest.mark.parametrize("name", ["link", "../secret"])
def test_a_path_that_leads_out_of_the_folder_raises(outside, name):
    (outside.parent / "data" / "link").symlink_to(outside)
    with pytest.raises(
        ValueError, match="Expected files in the folder .* leads out of it to .*sec"
    ):
        official_file(outside.parent / "data", name, source="the web")


@pytest.mark.parametrize("link", ["train/pos/0_9.txt", "train/pos", "train", "aclImdb_v1.tar.gz"])
def test_a_link_among_reviews_that_leads_out_of_their_folder_raises(tmp_path, link):
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    for folder in (data, elsewhere):
        for name in ("train/neg/0_1.txt", "train/pos/1_9.txt"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("text")
    place = data / link
    if place.is_dir() or "tar" in link:
        (data / "train").rename(tmp_path / "away")
        if link == "train/pos":
            (data / "train" / "neg").mkdir(parents=True)
    place.symlink_to(elsewhere / "train/pos/1_9.txt" if place.suffix else elsewhere / link)
    with pytest.raises(ValueError, match="Expected files in the folder .* leads out of it"):
        read_imdb(data, "train")


def test_a_folder_of_reviews_that_is_a_link_out_of_the_folder_of_data_raises(tmp_path):
    (tmp_path / "elsewhere" / "train").mkdir(parents=True)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "aclImdb").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="leads out of it to .*elsewhere"):
        read_imdb(tmp_path / "data", "train")


def test_a_link_among_images_that_leads_out_of_their_folder_raises(outside):
    folder = outside.parent / "data"
    (folder / "train-images-idx3-ubyte").symlink_to(outside)
    with pytest.raises(ValueError, match="leads out of it to .*secret"):
        read_mnist(folder, "train")


def test_room_is_checked_without_leaving_a_file(tmp_path):
    check_room(tmp_path, 10_000)
    with pytest.raises(OSError):
        check_room(tmp_path, 2**60)
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_bytes(path, b"old")

    def fail(descriptor: int) -> None:
        raise RuntimeError("half way")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="half way"):
        patch.setattr(os, "fsync", fail)
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.txt"]
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_process_killed_while_it_writes_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "a.txt"
    write_bytes(path, b"old")
    code = f"""
import os, signal
from pathlib import Path
from gradflow.paths import write_bytes
os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
write_bytes(Path({str(path)!r}), b"new")
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert path.read_bytes() == b"old"


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    calls = []
    replace, fsync = os.replace, os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd)))
    monkeypatch.setattr(
        os, "replace", lambda a, b: (calls.append(a.parent == b.parent), replace(a, b))
    )
    write_bytes(tmp_path / "new" / "a.txt", b"x")
    assert calls == ["fsync", True]
