import json
import os

import tiny
from matplotlib.figure import Figure
from PIL import Image

from gradflow import study
from gradflow.study.provenance import versions

CONFIG = tiny.Config(cells=("lstm", "/home/alice/mine.py:cell"), log="/home/alice/log.txt")


def export(folder, seconds=1.23456):
    numbers = {"decay": -0.5, "cut": float("-inf")}
    with study.figure.style():
        figure = Figure()
        figure.subplots().plot([0, 1], [0, -1])
    study.export(numbers, figure, folder, "tiny", config=CONFIG, seconds=seconds)


def test_the_gallery_holds_a_picture_and_the_numbers_behind_it(tmp_path):
    export(tmp_path / "figures")
    assert sorted(os.listdir(tmp_path / "figures")) == ["tiny.json", "tiny.png"]
    with Image.open(tmp_path / "figures" / "tiny.png") as image:
        assert image.size == (700, 520)
    record = json.loads((tmp_path / "figures" / "tiny.json").read_text())
    assert record["numbers"] == {"decay": -0.5, "cut": "-inf"}
    assert record["config"]["cells"] == ["lstm", "mine.py:cell"]
    assert record["config"]["num_steps"] == 6
    assert record["config"]["log"] == "log.txt"
    assert record["versions"] == versions()
    assert record["seconds"] == 1.2


def test_the_same_numbers_have_the_same_bytes(tmp_path):
    export(tmp_path / "a")
    export(tmp_path / "b", seconds=1.24)
    for name in ("tiny.json", "tiny.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
