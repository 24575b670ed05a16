from pathlib import Path

import pytest
from absl import flags
from swept import EXPERIMENT

from gradflow.study.sweep.request import read_sweep
from gradflow.study.sweep.studies import find_study, load_study


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        (
            "--cell=rnn,lstm(forget_bias=2,peephole=True)",
            ["rnn", "lstm(forget_bias=2,peephole=True)"],
        ),
        ("--cell=rnn,lstm; gru", ["rnn,lstm", "gru"]),
        ("--hidden_size=2, 3", [2, 3]),
        ("--lags=0,1;0,2,4", [(0, 1), (0, 2, 4)]),
        ("--precision=float64,float32", ["float64", "float32"]),
    ],
)
def test_values_are_separated(flag, expected):
    sweep = read_sweep(EXPERIMENT, [flag, "--workdir=out"])
    ((name, values),) = sweep.axes.items()
    assert list(values.values()) == expected
    for job, text in zip(sweep.jobs, values, strict=True):
        assert job.point == {name: text}
        assert f"--{name}={text}" in job.arguments


def test_a_list_and_a_value_that_ends_in_a_semicolon_are_one_value():
    sweep = read_sweep(EXPERIMENT, ["--lags=0,1", "--cell=a,b;", "--seed=0,1"])
    assert list(sweep.axes) == ["seed"]
    assert all({"--lags=0,1", "--cell=a,b"} <= set(job.arguments) for job in sweep.jobs)


def test_jobs_are_all_combinations_in_folders_of_their_own():
    argv = ["--cell=a,b", "--seed=0,1,2", "--jobs=3", "--quick", "--overwrite", "--workdir=out"]
    sweep = read_sweep(EXPERIMENT, argv)
    points = [tuple(job.point.values()) for job in sweep.jobs]
    assert points == [(cell, seed) for cell in "ab" for seed in "012"]
    assert len({job.folder for job in sweep.jobs}) == 6
    assert {job.folder.parent for job in sweep.jobs} == {Path("out/jobs").absolute()}
    first = sweep.jobs[0]
    assert first.arguments == ("--quick", "--cell=a", "--seed=0", f"--workdir={first.folder}")


def test_the_last_of_a_flag_that_is_given_twice_counts():
    assert list(read_sweep(EXPERIMENT, ["--seed=0,1", "--cell=a,b", "--cell=c"]).axes) == ["seed"]
    assert list(read_sweep(EXPERIMENT, ["--cell=c", "--cell=a,b"]).axes["cell"]) == ["a", "b"]


def test_the_default_folder_is_that_of_the_values():
    one, same, other = (
        read_sweep(EXPERIMENT, [f"--hidden_size={sizes}", "--cell=a"]).folder
        for sizes in ("2,3", "2, 3", "2,4")
    )
    assert one == same != other
    assert one.parent == Path("results/swept-sweep").absolute()
    assert one.name.startswith("hidden_size=2_3-")


def test_studies_are_found_by_name():
    found = {name: find_study(name) for name in ("vanishing", "char_lm", "papers/pascanu2013")}
    assert [path.name for path in found.values()] == ["vanishing.py", "char_lm", "pascanu2013.py"]
    assert load_study(found["char_lm"]).name == "char_lm"


def test_a_package_without_a_checkout_has_no_studies(tmp_path):
    with pytest.raises(ValueError, match="got an installed package alone. Run the command in a"):
        find_study("vanishing", tmp_path)


def test_a_sweep_on_several_processes_is_refused():
    with pytest.raises(flags.Error, match="runs each job in a process of its own. Remove the flag"):
        read_sweep(EXPERIMENT, ["--seed=0,1", "--distributed"])
