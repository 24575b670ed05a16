"""Every file that a study reads is a part of what its run is: a changed one is another run."""

from pathlib import Path

import pytest
from studies import load, load_part

from gradflow.data.idx import PREFIXES
from gradflow.study import Experiment

CELL = """
from gradflow.cells import rnn
def mine(input_size, hidden_size):
    return rnn(input_size, hidden_size)
"""

MNIST = [
    f"{p}-{kind}-ubyte.gz" for p in PREFIXES.values() for kind in ("images-idx3", "labels-idx1")
]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The current folder, where data/ has all files that a study could read."""
    monkeypatch.chdir(tmp_path)
    names = ("train.csv", "test.csv", "subset.csv", "aclImdb_v1.tar.gz", "ETTh1.csv", "other.txt")
    names += ("train_5500.label", "TREC_10.label", *MNIST)
    for name in ("input", "series", "mine.csv", *(f"data/{name}" for name in names)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "mine.py").write_text(CELL)
    return tmp_path


def experiment(name: str) -> Experiment:
    return load_part(name).EXPERIMENT if name.endswith(".study") else load(name).EXPERIMENT


@pytest.mark.parametrize(
    ("name", "given", "files"),
    [
        ("char_lm.study", {"text": "input"}, ["input"]),
        ("char_lm.study", {"text": "input", "cell": "rnn,mine.py:mine"}, ["input", "mine.py"]),
        ("vanishing", {"cell": "mine.py:mine", "inputs": "text:input"}, ["input", "mine.py"]),
        ("vanishing", {"inputs": "series:mine.csv:Close"}, ["mine.csv"]),
        ("flow_map", {"inputs": "npy:./input"}, ["./input"]),
        ("training.study", {"cell": "zoneout(cell='mine.py:mine')"}, ["mine.py"]),
        ("forecasting.study", {"series": "mine.csv:1"}, ["mine.csv"]),
        ("forecasting.study", {"series": "series:1", "models": "naive,mine.py:mine"},
         ["mine.py", "series"]),
        ("forecasting.study", {"data": "etth1", "data_dir": "data"}, ["data/ETTh1.csv"]),
        ("forecasting.study", {"data_dir": "data"}, []),
        ("classification.study", {"data_dir": "data"},
         ["data/TREC_10.label", "data/train_5500.label"]),
        ("classification.study", {"data": "ag_news", "data_dir": "data"},
         ["data/test.csv", "data/train.csv"]),
        ("classification.study",
         {"data": "ag_news", "data_dir": "data", "train_file": "subset.csv"},
         ["data/subset.csv", "data/test.csv"]),
        ("classification.study", {"data": "imdb", "data_dir": "data"}, ["data/aclImdb_v1.tar.gz"]),
        ("classification.study", {"data": "imdb", "data_dir": None}, []),
        ("sequential_images", {"data": "mnist", "data_dir": "data"},
         sorted(f"data/{name}" for name in MNIST)),
        ("sequential_images", {"data_dir": "data"}, []),
    ],
)  # fmt: skip
def test_a_study_knows_its_files(folder, name, given, files):
    study = experiment(name)
    config = study.resolve(given)
    before = study.identity(config)
    assert list(before.get("files", {})) == files
    for file in files:
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content + b"#")
        after = study.identity(config)
        assert {name for name in files if after["files"][name] != before["files"][name]} == {file}
        (folder / file).write_bytes(content)
    (folder / "data" / "other.txt").write_text("another")
    assert study.identity(config) == before


def test_trained_parameters_and_the_file_of_their_cell_are_files_of_a_study(folder):
    (folder / "trained").write_text("parameters")
    study = experiment("vanishing")
    config = study.resolve({"params": ("trained", "nowhere"), "cell": "mine.py:mine"})
    assert list(study.identity(config)["files"]) == ["mine.py", "trained"]
