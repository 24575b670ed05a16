"""Several processes run one study: the same numbers, one record, one line when one has ended.

The processes are real ones on this machine, connected by JAX's distributed runtime through the
loopback interface; each has a device of its own.
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from together import EXPERIMENTS, SECONDS, TINY, alone, ended, killed, together

from gradflow import study
from gradflow.study import abort_report

LOST = "error: Another process of this run has ended or cannot be reached."
pytestmark = pytest.mark.slow(
    reason="two and four processes import JAX and compile their programs on the same few cores"
)

PROGRAM = """
import sys
import jax, jax.numpy as jnp, numpy as np
from functools import partial
from gradflow import processes
from gradflow.devices import map_runs, place_runs, sum_over_batch, to_first_device
number, own = int(sys.argv[2].partition("=")[2]), int(sys.argv[3].partition("=")[2])
jax.distributed.initialize(sys.argv[1].partition("=")[2], number, own)
assert processes.are_several() and jax.device_count() == number == jax.process_count()
assert processes.is_first() == (own == 0)

asked = []
assert processes.from_first(lambda: asked.append(own) or {"own": own}) == {"own": 0}
assert asked == ([0] if own == 0 else [])
try:
    processes.from_first(lambda: 1 / 0)
except processes.FirstProcessError as error:
    assert isinstance(error.__cause__, ZeroDivisionError) == (own == 0)
assert processes.differing(bytes([7, int(own > 1)])) == list(range(2, number))

def one(run):
    key, x = run
    return {"key": key, "noise": jax.random.normal(key, (2,)), "largest": jnp.linalg.norm(x, 2)}

for length in (1, 2, 3, 5):  # fewer runs than devices, and numbers that do not divide
    runs = jax.random.split(jax.random.key(0), length), jnp.arange(4.0 * length).reshape(-1, 2, 2)
    wanted = jax.jit(jax.vmap(one))(runs)
    for found in (jax.jit(map_runs(one, sequential=False))(runs), map_runs(one)(runs)):
        keys = jax.random.key_data(found.pop("key"))
        np.testing.assert_array_equal(keys, jax.random.key_data(runs[0]))
        for name, value in found.items():
            np.testing.assert_array_equal(value, wanted[name])
    assert len(found["noise"].devices()) == (number if length > 1 else 1)
    np.testing.assert_array_equal(place_runs(one, runs)[1], runs[1])

seen = []
def share(params, batch):
    seen.append(batch.shape[0])
    return {"sum": params * jnp.sum(batch)}, -batch

for size in (16 * number, 16 * number + 1):  # and one that all processes compute, for it is odd
    rows = jnp.arange(4.0 * size).reshape(size, 4)
    sums, opposite = jax.jit(partial(sum_over_batch, share, axes=0))(2.0, rows)
    assert float(sums["sum"]) == 2 * float(jnp.sum(rows))
    np.testing.assert_array_equal(opposite, -rows)
    assert to_first_device(sums)["sum"].devices() == {jax.local_devices()[0]}
assert set(seen) == {16, 16 * number, 16 * number + 1}  # a share, and what is traced whole

gradient = jax.grad(lambda x: jnp.sum(map_runs(jnp.sin, sequential=False)(x)))(jnp.arange(3.0))
np.testing.assert_allclose(gradient, np.cos(np.arange(3.0)), rtol=1e-6)
"""


@pytest.mark.parametrize("number", (2, 4))
def test_the_devices_of_all_processes_share_runs_and_batches(number, tmp_path):
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    with together([[file]] * number) as started:
        for one in map(ended, started):
            assert one.code == 0, one.errors


def test_a_study_has_the_bits_and_the_record_of_one_process(tmp_path):
    study_of_vanishing = EXPERIMENTS / "vanishing.py", "--quick", "--num_seeds=3"
    folders = [tmp_path / "run", tmp_path / "of-another-disk"]
    with together([[*study_of_vanishing, f"--workdir={folder}"] for folder in folders]) as started:
        first, second = map(ended, started)
    assert (first.code, second.code) == (0, 0) and first.errors == second.errors == []
    assert "recorded in" in first.out and second.out == ""
    assert not folders[1].exists()
    one = alone(2, *study_of_vanishing, f"--workdir={tmp_path / 'alone'}")
    assert one.out.splitlines()[1:] == first.out.splitlines()[1:]
    assert (tmp_path / "alone/result.nc").read_bytes() == (folders[0] / "result.nc").read_bytes()
    environment = json.loads((folders[0] / "env.json").read_text())
    assert environment["num_processes"] == 2 and environment["num_devices"] == 2


TRAINING = EXPERIMENTS / "training", "--quick", "--cell=gru"
"""A training, without the flags that say of how many runs."""


def test_runs_that_are_trained_have_the_bits_of_one_process(tmp_path):
    command = *TRAINING, "--num_seeds=3", "--probe=log_norms"
    with together([[*command, f"--workdir={tmp_path / 'run'}"]] * 2) as started:
        assert [one.code for one in map(ended, started)] == [0, 0]
    assert alone(2, *command, f"--workdir={tmp_path / 'alone'}").code == 0
    found, wanted = (tmp_path / name / "result.nc" for name in ("run", "alone"))
    assert found.read_bytes() == wanted.read_bytes()


def test_a_batch_that_four_processes_share_has_the_loss_of_one(tmp_path):
    command = *TRAINING, "--num_seeds=1", "--batch_size=64", "--precision=float64"
    with together([[*command, f"--workdir={tmp_path / 'run'}"]] * 4) as started:
        assert [one.code for one in map(ended, started)] == [0] * 4
    assert alone(1, *command, f"--workdir={tmp_path / 'alone'}").code == 0
    found, wanted = (study.read_dataset(tmp_path / name / "result.nc") for name in ("run", "alone"))
    for name in ("loss", "train_loss"):
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-9)


def until(path: Path, pattern: str, started: list) -> None:
    """Waits until there is a file of that name, and the processes run."""
    deadline = time.monotonic() + SECONDS
    while not list(path.glob(pattern)):
        assert time.monotonic() < deadline and all(one.poll() is None for one in started)
        time.sleep(0.02)


def test_after_the_kill_of_a_process_the_others_end_and_the_same_command_resumes(tmp_path):
    command = *TRAINING, "--num_seeds=2", "--num_updates=400", "--eval_every=20"
    run = tmp_path / "run"
    moments = (
        (1, "config.json"),  # before the first update: the programs are being compiled
        (0, "units/*/checkpoints/100"),  # the process that has the coordinator and the record
        (1, "units/*/checkpoints/200"),
    )
    for victim, pattern in moments:
        with together([[*command, f"--workdir={run}"]] * 2) as started:
            until(run, pattern, started)
            killed(started[victim])
            other = ended(started[1 - victim])
        assert other.code != 0 and other.out == ""
        assert len(other.errors) == 1 and other.errors[0].startswith(LOST), other.errors
        assert not (run / "DONE").exists()
    with together([[*command, f"--workdir={run}"]] * 2) as started:
        assert [one.code for one in map(ended, started)] == [0, 0]
    assert alone(2, *command, f"--workdir={tmp_path / 'alone'}").code == 0
    for name in ("result.nc", "units/*/metrics.jsonl"):
        found, wanted = (next(folder.glob(name)) for folder in (run, tmp_path / "alone"))
        assert found.read_bytes() == wanted.read_bytes()


def other_code(tmp_path: Path) -> Path:
    """The tiny study with another comment."""
    file = tmp_path / "tiny.py"
    file.write_text(TINY.read_text() + "\n# another version\n")
    return file


def test_what_differs_between_the_processes_is_refused(tmp_path):
    own = TINY, "--quick", f"--workdir={tmp_path / 'run'}"
    cases = (
        ((*own, "--num_steps=4"), (1, 1), "has other flags or input files than process 0"),
        ((other_code(tmp_path), *own[1:]), (1, 1), "has other code than process 0"),
        (own, (1, 2), "Expected as many devices in every process, got 1, 2."),
    )
    for other, devices, message in cases:
        with together([own, other], devices=devices) as started:
            first, second = map(ended, started)
        assert (first.code, second.code) == (1, 1)
        assert len(first.errors) == 1 and message in first.errors[0], first.errors
        assert second.errors == [] and first.out == second.out == ""
        assert not (tmp_path / "run").exists()


def test_a_failure_of_the_first_process_ends_all(tmp_path):
    (tmp_path / "file").touch()
    own = TINY, "--quick", f"--workdir={tmp_path / 'file' / 'run'}"
    with together([own, own]) as started:
        first, second = map(ended, started)
    assert (first.code, second.code) == (1, 1) and second.errors == []
    assert len(first.errors) == 1 and "cannot be written" in first.errors[0]


def test_an_error_of_every_process_ends_all(tmp_path):
    own = TINY, "--quick", "--fail=run", f"--workdir={tmp_path / 'run'}"
    with together([own, own]) as started:
        for one in map(ended, started):
            assert one.code != 0 and len(one.errors) == 1, one.errors
    assert not (tmp_path / "run" / "DONE").exists()


def impatient(tmp_path: Path) -> Path:
    """The tiny study, whose processes wait for each other for three seconds."""
    shutil.copy(TINY, tmp_path)
    file = tmp_path / "impatient.py"
    file.write_text(
        "from gradflow.study import distributed, main\nimport tiny\n"
        "distributed.CONNECT_SECONDS = 3\nmain(tiny.EXPERIMENT)\n"
    )
    return file


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ((1,), "process 0 cannot be reached"),
        ((0, 0), "or others are missing"),
        ((0, 1, 1), "Expected a --process_id of its own for each process"),
    ],
)
def test_processes_that_do_not_find_each_other_say_so(ids, message, tmp_path):
    own = impatient(tmp_path), "--quick", f"--workdir={tmp_path / 'run'}"
    with together([own] * max(len(ids), 2), ids=ids + (0,) * (2 - len(ids))) as started:
        if len(ids) == 1:  # nobody is the first process
            killed(started[1])
            started = started[:1]
        found = [ended(one) for one in started]
    assert all(one.code != 0 and len(one.errors) == 1 for one in found), found
    assert any(message in one.errors[0] for one in found)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("F1201 client.h:80] Terminating process: tasks stopped sending heartbeats", LOST),
        ("F1201 x.cc:1] Check failed: sum > 0", "error: JAX has aborted: F1201 x.cc:1] Check fa"),
        ("W1201 gloo.cc:80] a peer is slow", ""),
    ],
)
def test_an_abort_becomes_one_line_and_other_messages_none(text, message):
    done = subprocess.run(
        [sys.executable, "-I", "-S", abort_report.__file__],
        input=f"W1201 x.cc:1] first\n{text}\n*** stack trace: ***\n  @ 0x7f\n",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == (1 if message else 0)


def test_a_run_that_no_cluster_has_started_says_what_to_add(tmp_path):
    one = alone(1, TINY, "--distributed", f"--workdir={tmp_path / 'run'}")
    assert one.code == 1 and len(one.errors) == 1
    assert "Add --coordinator, --num_processes and --process_id." in one.errors[0]
