import sys
from pathlib import Path

import numpy as np
import pytest

from gradflow import study
from gradflow.report.experiment import EXPERIMENT, demo
from gradflow.study.store import read_dataset

QUICK = ["--quick", "--num_steps=12"]


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    folder = tmp_path_factory.mktemp("diagnosis")
    code = study.main(EXPERIMENT, [*QUICK, "--advice", f"--workdir={folder}"])
    assert code == 0
    return folder


def test_a_diagnosis_leaves_a_page_a_figure_and_the_numbers(record):
    page = (record / "report.html").read_text(encoding="utf-8")
    assert "The gradient falls below 1e-3 after 7 steps" in page
    assert "chrono forget bias for 12 steps" in page and "diagnose --quick" in page
    assert {"figure.png", "figure.pdf", "result.nc", "DONE"} <= {p.name for p in record.iterdir()}


def test_the_record_holds_each_layer_by_number(record):
    found = read_dataset(record / "result.nc")
    assert found.attrs["num_layers"] == 1 and str(found.layer0_name.values) == "lstm"
    # Two sequences of 12 steps: the norm falls by the forget gate, about σ(-2) = 0.12, a step.
    assert found.layer0_log_norm.shape == (2, 13)
    assert float(found.layer0_log_norm[0, -1]) < 12 * np.log(0.5)


def test_the_end_of_a_run_names_the_horizon(record, capsys):
    assert study.main(EXPERIMENT, [*QUICK, "--advice", f"--workdir={record}"]) == 0
    printed = capsys.readouterr().out
    assert "is finished" in printed and "lstm: The gradient falls below 1e-3 after" in printed


def test_a_replot_writes_the_page_again(record):
    before = (record / "report.html").read_bytes()
    (record / "report.html").unlink()
    assert study.main(EXPERIMENT, [*QUICK, "--advice", f"--workdir={record}", "--replot"]) == 0
    assert len((record / "report.html").read_bytes()) == len(before)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "Expected a model, got none. Name its file: gradflow diagnose model.safetensors"),
        (["--model=nowhere.pt"], "Expected a model at 'nowhere.pt', got none. Check the path."),
        (["--model=demo", "--lengths=3"], "--lengths are those of a --sample, but there is none."),
        (["--model=demo", "--inputs=digits"], "Expected 8 channels for layer lstm, got 1"),
        (["--model=demo", "--sample=batch.npy"], "the source, gradflow, has parameters alone"),
        (["--model=demo", "--loss=first"], "Unknown loss 'first'"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    flags, message, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    np.save("batch.npy", np.ones((2, 12, 8)))
    folder = tmp_path / "record"
    assert study.main(EXPERIMENT, [*flags, "--num_steps=12", f"--workdir={folder}"]) == 1
    assert message in capsys.readouterr().err
    assert not folder.exists() or not any(folder.iterdir())


def test_the_demo_forgets():
    bias = demo().layers[0].params["f"]["b"]
    np.testing.assert_array_equal(bias, -2.0)


def test_the_lines_of_the_page_are_those_of_the_demo():
    page = Path(__file__).parents[2] / "docs" / "diagnose.md"
    quoted = page.read_text(encoding="utf-8").splitlines()
    config = EXPERIMENT.resolve({"model": "demo", "advice": False})
    with study.precision(config):
        printed = EXPERIMENT.report(EXPERIMENT.run(config)).splitlines()
    assert [line for line in printed if line not in quoted] == [] and len(printed) == 5


def test_the_claims_are_about_the_needed_lag(record):
    arrives, repaired = EXPERIMENT.claims(read_dataset(record / "result.nc"))
    assert arrives.verdict == "not supported"
    assert arrives.measured[0].value < -4  # 12 steps at about 0.3 each
    assert repaired.verdict == "supported" and abs(repaired.measured[0].value) < 3


def test_a_missing_framework_is_one_line(tmp_path, capsys, monkeypatch):
    (tmp_path / "net.onnx").write_bytes(bytes(9))
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert study.main(EXPERIMENT, [f"--model={tmp_path / 'net.onnx'}"]) == 1
    error = capsys.readouterr().err
    assert "pip install 'gradflow-rnn[onnx]'" in error and error.count("\n") == 1
