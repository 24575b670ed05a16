import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gradflow import study
from gradflow.study.sources import digests


@dataclass(frozen=True)
class Config(study.Config):
    one: str | None = study.field(None, help="A spec.")
    many: tuple[str, ...] = study.field((), help="Specs.")


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch) -> Iterator[Path]:
    """A folder with files, which is the current one and is searched for modules."""
    monkeypatch.chdir(tmp_path)
    for name in ("mine.py", "a b, c.csv", "text", "lstm", "x.txt", "pack/__init__.py", "pack/m.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"NAME = {name!r}")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for module in ("pack", "pack.m"):
        sys.modules.pop(module, None)


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("mine.py:cell", ["mine.py"]),
        ("./mine.py:cell(gain=2)", ["./mine.py"]),
        ("lstm,mine.py:cell(gain=0.5),gru", ["mine.py"]),
        ("zoneout(cell='mine.py:cell')", ["mine.py"]),
        ("stack(cells='lstm,zoneout(cell=\"mine.py:cell\")')", ["mine.py"]),
        ("mine.py:cell,pack/m.py:cell", ["mine.py", "pack/m.py"]),
        ("pack.m:cell(gain=2)", ["pack.m"]),
        ("zoneout(cell='pack.m:cell')", ["pack.m"]),
        ("text:x.txt", ["x.txt"]),
        ("text:lstm", ["lstm"]),
        ("series:a b, c.csv:Close", ["a b, c.csv"]),
        ("a b, c.csv:3", ["a b, c.csv"]),
        ("npy:x.txt", ["x.txt"]),
        ("x.txt", ["x.txt"]),
        ("lstm", []),  # the cell, whatever lies in the current folder
        ("text", []),
        ("text:nowhere.txt", []),
        ("nowhere.py:cell", []),
        ("nowhere.m:cell", []),
        ("lstm(forget_bias=2)", []),
        ("pack", []),  # a folder
        ("x" * 5000, []),
        ("\0", []),
    ],
)
def test_files_are_found_where_a_spec_names_them(value, names):
    assert list(digests(Config(one=value))) == names
    assert list(digests(Config(many=("gru", value)))) == names


def test_a_digest_is_that_of_the_content_and_not_of_the_time(files):
    before = digests(Config(one="mine.py:cell"))
    os.utime(files / "mine.py", (1, 1))
    assert digests(Config(one="mine.py:cell")) == before
    (files / "mine.py").write_text("another")
    after = digests(Config(one="mine.py:cell"))
    assert after.keys() == before.keys() and after != before
    assert all(len(digest) == 16 and int(digest, 16) for digest in after.values())


def test_a_study_can_name_further_files_folders_and_specs(files):
    found = digests(Config(), ["lstm", "pack", "mine.py:cell", "nowhere"])
    assert list(found) == ["lstm", "mine.py", "pack"]
    (files / "pack" / "m.py").write_text("another")
    again = digests(Config(), ["lstm", "pack", "mine.py:cell"])
    assert {name for name in found if found[name] != again[name]} == {"pack"}


def test_no_absolute_path_is_in_a_name(files):
    paths = f"{files}/mine.py:cell", f"text:{files}/x.txt", f"{files}/pack/mine.py:cell"
    (files / "pack" / "mine.py").write_text("another one")
    found = digests(Config(many=paths), [f"{files}/pack/"])
    assert list(found) == ["mine.py", "pack", "x.txt"]
    assert len(found["mine.py"].split("+")) == 2  # of both files of that name
    (files / "pack" / "mine.py").write_text("changed")
    assert digests(Config(many=paths))["mine.py"] != found["mine.py"]


def test_a_module_whose_package_is_broken_is_left_to_its_import(files):
    (files / "pack" / "__init__.py").write_text("raise RuntimeError('broken')")
    assert digests(Config(one="pack.m:cell")) == {}


def test_the_digest_of_a_cell_s_file_covers_the_files_beside_it_that_it_imports(files):
    (files / "parts").mkdir()
    (files / "mine.py").write_text("import numpy\nfrom parts import gains")
    (files / "parts" / "gains.py").write_text("import helper, mine")
    (files / "helper.py").write_text("one")
    before = digests(Config(one="mine.py:cell"))
    (files / "other.py").write_text("not imported")
    assert digests(Config(one="mine.py:cell")) == before
    (files / "helper.py").write_text("two")
    assert digests(Config(one="mine.py:cell")) != before
