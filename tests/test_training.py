"""The general study of training: its record, its resumption, its claims, bad input."""

import importlib
import json
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray
from studies import load_part

from gradflow import study
from gradflow.cells import rnn
from gradflow.tasks import resolve_task
from gradflow.train.driver import Schedule, fit
from gradflow.train.fresh import fresh_sequences
from gradflow.train.optimisers import resolve_optimiser
from gradflow.train.runs import begin
from gradflow.train.tensorboard import Board
from gradflow.train.training import Training

runs_module = importlib.import_module("gradflow.train.fresh")

EXPERIMENT = load_part("training.study").EXPERIMENT
FLAGS = [
    "--quick",
    "--cell=rnn",
    "--task=adding(num_steps=6)",
    "--hidden_size=4",
    "--learning_rate=0.01,0.1,1e38",
    "--probe=adjoints,spectrum",
    "--probe_every=40",
]


def run(workdir: Path, *flags: str) -> int:
    return study.main(EXPERIMENT, [*FLAGS, *flags, f"--workdir={workdir}"])


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training") / "out"
    assert run(folder) == 0
    return folder


def metrics(folder: Path) -> bytes:
    (path,) = folder.glob("units/*/metrics.jsonl")
    return path.read_bytes()


def test_the_record_is_what_the_library_trains(recorded):
    dataset = study.read_dataset(recorded / "result.nc")
    sizes = {"cell": 1, "learning_rate": 3, "seed": 2, "update": 4}
    assert dict(dataset.loss.sizes) == sizes and dataset.loss.dtype == np.float64
    with study.precision(EXPERIMENT.config()):  # float32, as the experiment trains
        training = Training(
            rnn(2, 4),
            resolve_task("adding(num_steps=6)"),
            resolve_optimiser("adam"),
            batch_size=8,
            eval_size=32,
        )
        keys = jax.random.split(jax.random.fold_in(jax.random.key(0), 0), 2)
        runs = begin(training, keys, jnp.array([0.1, 0.1]))
        *_, last = fit(fresh_sequences(training, runs), Schedule(60, 20))
    found = dataset.loss.sel(cell="rnn", learning_rate=0.1).transpose("update", "seed")
    np.testing.assert_allclose(found, last.metrics["loss"], rtol=1e-4)
    assert np.isnan(dataset.died_at.sel(learning_rate=[0.01, 0.1])).all()
    assert dataset.died_at.sel(learning_rate=1e38).isin([1, 2]).all()
    assert dataset.adjoints.sizes["step"] == 7 and dataset.spectrum.sizes["index"] == 4
    np.testing.assert_array_equal(dataset.probe_update, [0, 40])
    tried = dataset.validation_loss.isel(cell=0)
    assert tried.dims == ("learning_rate", "validation_seed") and tried.shape == (3, 2)
    assert np.isfinite(tried[:2]).all() and (tried[2] == np.inf).all()
    finals = dataset.loss.isel(update=-1).sel(learning_rate=0.1).values
    assert not np.isin(tried[1], finals).any()


def test_a_training_gives_the_same_bits_whether_it_resumes_or_starts_again(
    recorded, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "out"  # the picture has the command in it, and that the folder's name
    evaluate, done = runs_module.evaluate, []

    def interrupt_third_evaluation(*arguments):
        done.append(len(done))
        if len(done) == 3:
            raise KeyboardInterrupt
        return evaluate(*arguments)

    monkeypatch.setattr(runs_module, "evaluate", interrupt_third_evaluation)
    assert run(folder) == 130
    assert len(metrics(folder).splitlines()) == 2 and not (folder / "result.nc").exists()
    assert run(folder) == 0  # the two evaluations that were left
    assert len(done) == 3 + 2
    assert re.search(r"rnn +1e\+38 +0 of 2 +- +nan +2\n", capsys.readouterr().out)

    def assert_same_as_recorded(*files):
        for file in files:
            assert (folder / file).read_bytes() == (recorded / file).read_bytes()
        assert metrics(folder) == metrics(recorded)

    assert_same_as_recorded("result.nc", "figure.png")
    rows = [json.loads(line) for line in metrics(recorded).splitlines()]
    assert [row["update"] for row in rows] == [0, 20, 40, 60]
    assert run(folder, "--overwrite") == 0
    assert len(done) == 5 + 4
    assert_same_as_recorded("result.nc")


def test_the_flags_reach_the_training(tmp_path):
    flags = ["--cell=gru", "--learning_rate=0.01", "--num_updates=20", "--num_seeds=1"]
    ways = ["--clipping=global_norm(threshold=0.01)", "--truncation=2,3", "--init=identity"]
    probes = ["--probe=gates,components,log_norms", "--probe_every=20", "--optimiser=sgd"]
    ways += ["--regulariser=omega(weight=0.1)", "--tensorboard"]
    assert run(tmp_path / "out", *flags, *ways, *probes) == 0
    dataset = study.read_dataset(tmp_path / "out" / "result.nc").isel(cell=0, seed=0)
    assert float(dataset.clip_share[0, -1]) == 1.0
    assert float(dataset.regulariser[0, -1]) > 0
    assert list(dataset.gate.values) == ["n", "r", "z"]
    assert (
        np.isnan(dataset.gates.sel(step=0)).all() and np.isfinite(dataset.gates.sel(step=1)).all()
    )

    (events,) = (tmp_path / "out").glob("units/*/events.out.tfevents.*")
    written = events.read_bytes()
    assert written.count(b"accuracy/run_0") == 2 and written.count(b"train_loss/run_0") == 1


def test_thresholds_of_clipping_are_swept_side_by_side(tmp_path, capsys):
    flags = ["--learning_rate=0.01", "--num_updates=20", "--probe=", "--probe_every=20"]
    flags += ["--clipping=global_norm", "--clip_threshold=0.01,100"]
    assert run(tmp_path / "out", *flags) == 0
    dataset = study.read_dataset(tmp_path / "out" / "result.nc").isel(cell=0, learning_rate=0)
    assert dict(dataset.loss.sizes) == {"clip_threshold": 2, "seed": 2, "update": 2}
    np.testing.assert_array_equal(dataset.clip_share.sel(update=20), [[1, 1], [0, 0]])
    assert (dataset.clip_ratio.sel(update=20, clip_threshold=0.01) < 0.5).all()
    rows = [line.split()[:4] for line in capsys.readouterr().out.splitlines()]
    assert ["rnn", "0.01", "0.01", "0"] in rows and ["rnn", "0.01", "100", "0"] in rows


MINE = "from gradflow.cells import rnn as mine"


def test_a_training_does_not_resume_after_its_cell_file_changed(tmp_path, monkeypatch, capsys):
    """Whether its training was interrupted, or had ended while that of another cell had not."""
    file, evaluate, done = tmp_path / "mine.py", runs_module.evaluate, []
    other = tmp_path / "other.py"
    for path in (file, other):
        path.write_text(MINE)
    flags = [f"--cell={file}:mine,zoneout(cell='{other}:mine')", "--num_updates=20", "--probe="]
    flags += ["--probe_every=20", "--learning_rate=0.01"]

    def interrupt_the_other_s_second(*arguments):
        done.append(len(done))
        if len(done) == 2 + 2:
            raise KeyboardInterrupt
        return evaluate(*arguments)

    monkeypatch.setattr(runs_module, "evaluate", interrupt_the_other_s_second)
    assert run(tmp_path / "out", *flags) == 130
    for path in (file, other):
        path.write_text(MINE + "  # with a change")
        assert run(tmp_path / "out", *flags) == 1
        message = f"Expected the file {path.name} as it was when .* Run with --overwrite, or choose"
        assert re.search(message, capsys.readouterr().err)
        path.write_text(MINE)
    assert run(tmp_path / "out", *flags) == 0


def test_missing_tensorboardx_is_reported(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ValueError, match="Event files need tensorboardX, which is not installed"):
        Board(tmp_path, 0)


def test_a_solved_run_is_marked_in_the_figure_and_counted(recorded):
    dataset = study.read_dataset(recorded / "result.nc")
    solved = dataset.solved_at.copy()
    solved[0, 1] = [40, 60]
    dataset = dataset.assign(solved_at=solved)
    assert "rnn, at a learning rate of 0.1:" not in EXPERIMENT.summary(dataset)
    chosen = dataset.validation_solved_at.copy()  # which alone decides the rate
    chosen[0, 1] = 20
    dataset = dataset.assign(validation_solved_at=chosen)
    figure = EXPERIMENT.draw(dataset)
    upper = figure.subfigs[0].axes[0]
    (star,) = [line for line in upper.lines if line.get_marker() == "*"]
    assert star.get_xdata()[0] == 40
    summary = EXPERIMENT.summary(dataset)
    row = summary.splitlines()[3]
    assert row.split()[:6] == ["rnn", "0.1", "2", "of", "2", "50"]
    expected = "rnn, at a learning rate of 0.1: 2 of 2 networks solve adding(num_steps=6), after 50"
    assert expected in summary
    both = xarray.concat([dataset, dataset.assign_coords(cell=["gru"])], dim="cell")
    assert len(EXPERIMENT.draw(both).subfigs[1].axes) == 3  # a map each, and their scale


def made(dataset, solved, at_first, change):
    """Two cells: which seeds solve the task, log10 norms at step 0, and what training adds."""
    one = dataset.isel(learning_rate=[0])
    parts = []
    for cell in (0, 1):
        solved_at = np.where(solved[cell], 20.0, np.nan)
        log10 = np.array([at_first[cell], at_first[cell] + change[cell]])
        adjoints = one.adjoints * 0
        adjoints.loc[{"step": 0}] = log10[None, None, None] * np.log(10)
        data = one.assign(
            adjoints=adjoints, solved_at=one.solved_at.copy(data=solved_at[None, None])
        )
        parts.append(data.assign_coords(cell=[("rnn", "gru")[cell]]))
    return xarray.concat(parts, dim="cell")


@pytest.mark.parametrize(
    ("solved", "at_first", "change", "verdicts"),
    [
        (([0, 0], [1, 1]), (-9, -3), (2, 1), ("supported", "supported", "supported")),
        (([0, 0], [1, 1]), (-3, -9), (2, 0), ("supported", "not supported", "inconclusive")),
        (([1, 0], [0, 1]), (-3, -9), (2, -1), ("inconclusive", "inconclusive", "supported")),
    ],
)
def test_the_claims_are_decided_by_the_numbers(recorded, solved, at_first, change, verdicts):
    dataset = made(study.read_dataset(recorded / "result.nc"), solved, at_first, change)
    claims = EXPERIMENT.claims(dataset)
    assert tuple(claim.verdict for claim in claims) == verdicts
    assert len(EXPERIMENT.claims(dataset.drop_vars("adjoints"))) == 1
    (alone,) = EXPERIMENT.claims(dataset.isel(cell=[0]))
    assert alone.id == "training-changes-reach" and alone.measured[0].value == change[0]


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--cell=", "Expected the name of a cell, got ''. Try gru."),
        ("--cell=lsmt", "Unknown cell 'lsmt'"),
        ("--task=addign", "Unknown task 'addign'. Did you mean 'adding'"),
        ("--task=adding(num_steps=-3)", "Expected num_steps to be at least 2, got -3"),
        ("--optimiser=adma", "Unknown optimiser 'adma'. Did you mean 'adam'"),
        ("--optimiser=adam(learning_rate=1)", "Expected one learning rate, got --learning_rate"),
        ("--learning_rate=0.1,-1", "Expected numbers above zero"),
        ("--clipping=global_norm(threshold=0)", "Expected threshold to be positive"),
        ("--clip_threshold=1,2", "Expected a clipping with a threshold, and without options"),
        ("--regulariser=omgea", "Unknown regulariser 'omgea'"),
        ("--truncation=5", "Expected --truncation=k1,k2, got (5,). Try --truncation=20,40."),
        ("--truncation=5,0", "Expected numbers above zero"),
        ("--probe=gates", "The probe 'gates' needs a cell with gates"),
        ("--probe_every=30", "Expected probe_every to be a positive multiple of eval_every=20"),
        ("--num_updates=-60", "Expected a number above zero"),
        ("--hidden_size=-1", "Expected a number above zero"),
        ("--batch_size=0", "Expected a number above zero"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, capsys, flag, message):
    assert run(tmp_path / "out", flag) in (1, 2)
    shown = capsys.readouterr().err
    assert message in shown and shown.count("\n") == 1
    assert not (tmp_path / "out").exists()
