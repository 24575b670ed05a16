"""Sweeps whose jobs are real processes."""

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from gradflow import study
from gradflow.__main__ import main as command

STUDY = Path(__file__).parent / "swept.py"


def sweep(place: Path, *flags: str) -> list[str]:
    return [
        *("sweep", str(STUDY), f"--place={place}", f"--workdir={place}/out", "--jobs=2"),
        *flags,
    ]


def table(shown: str) -> dict[tuple[str, str], str]:
    """The state of each job in a printed table, with its reason."""
    rows = [re.split(" {2,}", line) for line in shown.splitlines()[2:]]
    return {(row[0], row[1]): ": ".join(row[2:]) for row in rows if len(row) > 2}


SIZES = {4: ("2,3", "rnn,lstm"), 24: ("2,3,4,5,6,7", "rnn,lstm,gru,lru")}


@pytest.mark.parametrize(
    "number", [4, pytest.param(24, marks=pytest.mark.slow(reason="26 processes that import JAX"))]
)
def test_the_same_command_runs_only_what_failed_and_joins_all(number, tmp_path, capsys):
    sizes, cells = SIZES[number]
    flags = [f"--cell={cells}", f"--hidden_size={sizes}", "--fail_at=rnn-3", "--kill_at=lstm-2"]
    assert command(sweep(tmp_path, *flags)) == 1
    states = table(capsys.readouterr().out)
    assert len(states) == number
    assert states.pop(("rnn", "3")) == "failed: Expected rnn-3 to be smaller. Choose another size."
    assert states.pop(("lstm", "2")) == "failed: The job was ended by SIGKILL."
    assert set(states.values()) == {"done"}
    partial = study.read_dataset(tmp_path / "out" / "result.nc")
    found = np.isnan(partial.log_norm.isel(lag=0))
    assert int(found.sum()) == 2 and found.sel(cell="rnn", hidden_size=3)

    (tmp_path / "fixed").touch()
    assert command(sweep(tmp_path, *flags)) == 0
    assert set(table(capsys.readouterr().out).values()) == {"done"}
    # The unit of work of both was finished before: no job has measured anything twice.
    counts = Counter((tmp_path / "log.txt").read_text().split())
    assert len(counts) == number and set(counts.values()) == {1}
    whole = study.read_dataset(tmp_path / "out" / "result.nc")
    assert whole.cell.values.tolist() == cells.split(",")
    assert whole.hidden_size.values.tolist() == [int(size) for size in sizes.split(",")]
    expected = -whole.hidden_size * whole.lag + 0 * (whole.cell == "")
    np.testing.assert_array_equal(whole.log_norm, expected.transpose(*whole.log_norm.dims))
    assert whole.measured.dims == ("cell", "hidden_size", "claim")
    np.testing.assert_array_equal(whole.measured.sel(claim="small")[0], -whole.hidden_size)
    assert (tmp_path / "out" / "figure.png").stat().st_size > 10_000


def test_a_killed_sweep_resumes_and_waits_for_a_job_that_outlived_it(tmp_path, capsys):
    flags = ["--cell=rnn,lstm", "--wait_at=rnn-4", "--jobs=1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "gradflow", *sweep(tmp_path, *flags)], start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "log.txt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert command(sweep(tmp_path, *flags, "--status")) == 1
    shown = capsys.readouterr().out
    assert "rnn   running" in shown and "lstm  waiting" in shown
    (tmp_path / "go").touch()
    assert command(sweep(tmp_path, *flags)) == 0
    assert (tmp_path / "log.txt").read_text().split() == ["rnn-4", "lstm-4"]
    assert command(sweep(tmp_path, *flags, "--overwrite")) == 0
    assert (tmp_path / "log.txt").read_text().split() == 2 * ["rnn-4", "lstm-4"]


def test_a_folder_of_something_else_is_left_alone(tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "result.nc").write_bytes(b"mine")
    assert command(sweep(tmp_path, "--seed=0,1")) == 1
    error = capsys.readouterr().err
    assert "to hold a sweep or nothing, got result.nc and no sweep.json." in error
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["result.nc"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "Expected a study first, got 'nothing'."),
        (["--seed=0,1"], "Expected a study first, got '--seed=0,1'."),
        (["vanishin"], "Unknown study 'vanishin'. Did you mean 'vanishing'?"),
        (["not_there.py"], "Expected the file of a study, but not_there.py does not exist."),
        ([str(STUDY.with_name("test_sweep.py"))], "in test_sweep.py, found none."),
        ([str(STUDY), "--cel=a,b"], "Unknown flag --cel. Did you mean --cell?"),
        ([str(STUDY), "--hidden_size=2,x"], "--hidden_size=x: Expected an integer"),
        ([str(STUDY), "--hidden_size=2,0"], "Expected a number above zero"),
        ([str(STUDY), "--hidden_size=2"], "Expected a flag with several values"),
        ([str(STUDY), "--hidden_size=2,3,02"], "Expected different values in --hidden_size"),
        ([str(STUDY), "--hidden_size", "2,3"], "Unexpected argument '2,3'."),
        ([str(STUDY), "--seed=0,1", "--replot"], "Remove --replot."),
        ([str(STUDY), "--seed=0,1", "--launcher=pbs"], "Expected one of local, slurm"),
    ],
)
def test_wrong_command_lines_end_with_one_line_before_anything_starts(
    argv, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert command(["sweep", *argv]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_help_lists_the_flags_of_the_study_and_of_sweeps(capsys):
    assert command(["sweep", str(STUDY), "--helpshort"]) == 0
    shown = capsys.readouterr().out
    assert "--hidden_size: The size." in shown and "--launcher: Where the jobs run" in shown
