import json
import os
from dataclasses import asdict, replace

import tiny
from PIL import Image

from gradflow import study
from gradflow.study.provenance import versions
from gradflow.study.store import to_json

CONFIG = tiny.Config(cells=("lstm", "/home/alice/mine.py:cell"), log="/home/alice/log.txt")


def export(folder, seconds=1.23456):
    dataset = tiny.run(replace(CONFIG, log="")).assign_attrs(config=to_json(asdict(CONFIG)))
    study.export(tiny.EXPERIMENT, dataset, folder, "tiny", config=CONFIG, seconds=seconds)


def test_the_gallery_holds_a_picture_and_the_numbers_behind_it(tmp_path):
    export(tmp_path / "figures")
    assert sorted(os.listdir(tmp_path / "figures")) == ["tiny.json", "tiny.png"]
    with Image.open(tmp_path / "figures" / "tiny.png") as image:
        assert image.size == (700, 520)
    record = json.loads((tmp_path / "figures" / "tiny.json").read_text())
    (found,) = record["claims"]
    assert found["verdict"] == "supported"
    assert found["measured"] == [
        {"name": "smallest log norm", "value": -6.931, "interval": None, "unit": "1"}
    ]
    assert record["summary"] == ["smallest log norm -6.931472"]
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
