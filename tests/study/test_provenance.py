import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from gradflow.study import provenance
from gradflow.study.provenance import checkout, command_line, shorten


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("/home/alice/x", "x"),
        ("/home/alice/x/", "x"),
        ("~/x/mine.py:cell", "mine.py:cell"),
        ("~alice/x", "x"),
        ("--workdir=/home/alice/run", "--workdir=run"),
        ("--cells=lstm,/home/alice/a b/mine.py:cell,gru", "--cells=lstm,mine.py:cell,gru"),
        ("mine(path='/home/alice/x.csv', n=2)", "mine(path='x.csv', n=2)"),
        ('["/home/alice/x", "/y/z"]', '["x", "z"]'),
        ("series:/home/alice/d.csv:t", "series:d.csv:t"),
        ("--a=/home/alice/x --b=/home/alice/y", "--a=x --b=y"),
        ("experiments/vanishing.py", "experiments/vanishing.py"),
        ("--gains=0.5,1/2", "--gains=0.5,1/2"),
        ("../x/y.py", "../x/y.py"),
        ("lstm(forget_bias=2)", "lstm(forget_bias=2)"),
    ],
)
def test_absolute_paths_are_reduced_to_their_last_component(text, short):
    assert shorten(text) == short


def test_the_command_can_be_typed_again():
    command = command_line("/srv/experiments/tiny.py", ["--cells=lstm(a=1, b=2)", "--seed", "3"])
    assert command == "tiny.py '--cells=lstm(a=1, b=2)' --seed 3"


def test_the_versions_are_those_of_what_runs(monkeypatch):
    found = provenance.versions()
    assert found["jax"] == jax.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert list(found) == ["python", "jax", "jaxlib", "flax", "numpy", "xarray", "gradflow-rnn"]
    monkeypatch.setattr(provenance, "PACKAGES", ("jax", "no-such-package"))
    assert provenance.versions()["no-such-package"] is None


def git(folder: Path, *arguments: str) -> str:
    settings = ["-c", "user.name=x", "-c", "user.email=x@y.invalid", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *settings, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_is_that_of_the_checkout_and_dirty_when_files_differ(tmp_path):
    git(tmp_path, "init", "--quiet")
    assert checkout(tmp_path) == {"git_commit": None, "git_dirty": None}  # nothing committed
    (tmp_path / "a.txt").write_text("1")
    git(tmp_path, "add", "a.txt")
    git(tmp_path, "commit", "--quiet", "--message=a")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert checkout(tmp_path) == {"git_commit": head, "git_dirty": False}
    (tmp_path / "a.txt").write_text("2")
    assert checkout(tmp_path) == {"git_commit": head, "git_dirty": True}
    git(tmp_path, "checkout", "--quiet", "a.txt")
    (tmp_path / "new.txt").write_text("1")
    assert checkout(tmp_path) == {"git_commit": head, "git_dirty": True}


def test_an_installed_package_is_not_part_of_the_repository_around_it(tmp_path):
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message=a")
    (tmp_path / "site-packages").mkdir()
    assert checkout(tmp_path / "site-packages") == {"git_commit": None, "git_dirty": None}


def test_without_git_the_commit_is_unknown(tmp_path, monkeypatch):
    git(tmp_path, "init", "--quiet")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert checkout(tmp_path) == {"git_commit": None, "git_dirty": None}


def test_the_checkout_is_that_of_the_package():
    assert (provenance.ROOT / "gradflow" / "study" / "provenance.py").samefile(provenance.__file__)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="compares with Linux's /proc")
def test_memory_is_counted_in_bytes():
    held = provenance.memory()["host_peak_bytes"]
    (peak,) = re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert held == pytest.approx(1024 * int(peak), rel=0.02)


def test_the_distribution_is_this_one():
    assert provenance.versions()["gradflow-rnn"] == importlib.metadata.version("gradflow-rnn")
