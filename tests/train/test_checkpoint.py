import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import echo
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradflow.train.checkpoint import Checkpoints
from gradflow.train.keeper import Keeper

IDENTITY = {"hidden_size": 4, "cell": "rnn"}


def tree(value: float) -> tuple:
    return (
        jnp.full((3, 4), value, jnp.float32),
        np.array([np.nan, -np.inf, value]),
        {"empty": np.zeros((2, 0)), "count": jnp.int32(value), "flag": np.array(True)},
    )


def like(notes: dict) -> tuple:
    """What was saved has the structure of this, whatever the notes say."""
    return tree(0)


def equal(a: tuple, b: tuple) -> bool:
    same = jax.tree.map(
        lambda x, y: np.asarray(x).tobytes() == np.asarray(y).tobytes() and x.dtype == y.dtype, a, b
    )
    return jax.tree.structure(a) == jax.tree.structure(b) and all(jax.tree.leaves(same))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "of a run"
    with Checkpoints(folder, IDENTITY) as checkpoints:
        assert checkpoints.restore(like) is None
        for step in (0, 5, 10):
            checkpoints.save(step, tree(step), {"lines": step})
    return folder


@pytest.fixture
def copied(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def test_what_was_saved_last_comes_back_bit_for_bit(saved):
    assert {path.name for path in saved.iterdir()} == {"5", "10"}  # the two newest
    with Checkpoints(saved, IDENTITY) as checkpoints:
        restored = checkpoints.restore(like)
    assert restored is not None
    assert (restored.step, restored.notes) == (10, {"lines": 10})
    assert equal(restored.tree, tree(10))
    assert not equal(restored.tree, tree(5))


def test_a_checkpoint_of_another_configuration_is_refused_field_by_field(saved):
    with Checkpoints(saved, {"hidden_size": 5, "cell": "rnn", "init": None}) as checkpoints:
        message = "with hidden_size=5, init=None, got hidden_size=4, init='absent' in .* Give each"
        with pytest.raises(ValueError, match=message):
            checkpoints.restore(like)
    assert {path.name for path in saved.iterdir()} == {"5", "10"}


@pytest.mark.parametrize("file", ["about/metadata", "arrays/_METADATA", "arrays/d/*"])
def test_a_truncated_checkpoint_is_left_out_for_the_one_before(copied, caplog, file):
    paths = list(copied.glob(f"10/{file}"))
    for path in paths:
        os.truncate(path, path.stat().st_size // 2)
    assert paths
    with Checkpoints(copied, IDENTITY) as checkpoints:
        restored = checkpoints.restore(like)
        assert restored is not None and restored.step == 5
        assert equal(restored.tree, tree(5))
        checkpoints.save(10, tree(11), {"lines": 10})  # in the place of the damaged one
        again = checkpoints.restore(like)
        assert again is not None and equal(again.tree, tree(11))
    # Others speak too: asyncio reports what the storage library left unread when a read failed.
    (record,) = (record for record in caplog.records if record.name.startswith("gradflow"))
    assert record.levelname == "WARNING" and "\n" not in record.getMessage()
    assert record.getMessage().startswith("Checkpoint 10 is damaged and was discarded (")


def test_a_checkpoint_whose_arrays_were_changed_is_left_out(copied, caplog):
    shutil.rmtree(copied / "10" / "arrays")
    shutil.copytree(copied / "5" / "arrays", copied / "10" / "arrays")  # whole, but not its own
    with Checkpoints(copied, IDENTITY) as checkpoints:
        restored = checkpoints.restore(like)
    assert restored is not None and restored.step == 5
    assert "its arrays are not those that were saved" in caplog.text


def test_what_a_killed_process_was_writing_is_removed(copied):
    (copied / "15.orbax-checkpoint-tmp" / "arrays").mkdir(parents=True)
    with Checkpoints(copied, IDENTITY) as checkpoints:
        restored = checkpoints.restore(like)
    assert restored is not None and restored.step == 10
    assert {path.name for path in copied.iterdir()} == {"5", "10"}


def test_the_metrics_are_cut_back_to_the_checkpoint_that_counts_on_them(tmp_path, caplog):
    metrics = tmp_path / "metrics.jsonl"
    with Keeper(tmp_path, IDENTITY) as keeper:
        assert keeper.restore(tree(0)) is None
        for update in (0, 5, 10):
            row = {"loss": np.array([0.5, np.nan], np.float32)}
            logs = {"metrics": {"loss": np.arange(update + 1.0)}, "probes": {}}
            keeper.keep(update, tree(update), logs, row, {"seconds": 1.0})
    lines = metrics.read_text().splitlines(keepends=True)
    assert json.loads(lines[1]) == {"update": 5, "loss": [0.5, "nan"]}
    metrics.write_text("".join(lines) + '{"update": 15, "lo')  # killed while writing
    with Keeper(tmp_path, IDENTITY) as keeper:
        kept = keeper.restore(tree(0))
    assert kept is not None and kept.update == 10 and equal(kept.state, tree(10))
    np.testing.assert_array_equal(kept.logs["metrics"]["loss"], np.arange(11.0))
    assert kept.logs["probes"] == {}
    assert metrics.read_text() == "".join(lines)
    metrics.write_text("".join(lines[:2]))  # lines that the newest checkpoint counts on are gone
    with Keeper(tmp_path, IDENTITY) as keeper:
        kept = keeper.restore(tree(0))
    assert kept is not None and kept.update == 5 and equal(kept.state, tree(5))
    assert (
        "Checkpoint 10 is damaged and was discarded (its lines are not all in metrics"
        in caplog.text
    )
    assert metrics.read_text() == "".join(lines[:2])


def kept(folder: Path) -> None:
    """Keeps three evaluations of a training."""
    with Keeper(folder, IDENTITY) as keeper:
        assert keeper.restore(tree(0)) is None
        for update in (0, 5, 10):
            logs = {"metrics": {"loss": np.arange(update + 1.0)}, "probes": {}}
            keeper.keep(update, tree(update), logs, {"loss": 0.5 + update}, {"seconds": 1.0})


def test_lines_that_are_not_those_that_were_written_are_not_built_upon(tmp_path, caplog):
    kept(tmp_path)
    metrics = tmp_path / "metrics.jsonl"
    lines = metrics.read_bytes()
    metrics.write_bytes(lines.replace(b"10.5", b"10.7"))
    with Keeper(tmp_path, IDENTITY) as keeper:
        found = keeper.restore(tree(0))
    assert found is not None and found.update == 5
    assert "the lines in metrics.jsonl are not those that were written" in caplog.text
    assert metrics.read_bytes() == b"".join(lines.splitlines(keepends=True)[:2])
    metrics.write_bytes(metrics.read_bytes().replace(b"0.5", b"0.7"))
    with Keeper(tmp_path, IDENTITY) as keeper:
        assert keeper.restore(tree(0)) is None
        keeper.keep(0, tree(0), {"metrics": {}, "probes": {}}, {"loss": 0.5}, {})
    with Keeper(tmp_path, IDENTITY) as keeper:
        assert keeper.restore(tree(0)) is not None
    assert metrics.read_bytes() == lines.splitlines(keepends=True)[0]


def test_a_checkpoint_whose_fields_were_changed_is_left_out(copied, caplog):
    (path,) = copied.glob("10/about/metadata")
    path.write_bytes(path.read_bytes().replace(b'"hidden_size": 4', b'"hidden_size": 6'))
    assert b'"hidden_size": 6' in path.read_bytes()
    with Checkpoints(copied, IDENTITY) as checkpoints:
        restored = checkpoints.restore(like)
    assert restored is not None and restored.step == 5
    assert "its fields are not those that were saved" in caplog.text


def test_two_trainings_in_one_folder_exclude_each_other(tmp_path):
    with Keeper(tmp_path, IDENTITY), pytest.raises(OSError, match="is using this folder"):
        Keeper(tmp_path, IDENTITY)
    with Keeper(tmp_path, IDENTITY):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoints"}


def test_a_training_that_resumes_on_another_number_of_devices_says_so(
    tmp_path, monkeypatch, caplog
):
    kept(tmp_path)
    monkeypatch.setattr(jax, "device_count", lambda: 7)
    with Keeper(tmp_path, IDENTITY) as keeper:
        assert keeper.restore(tree(0)) is not None
    (line,) = caplog.messages
    assert line.endswith("and resumes on 7: its results are equal up to rounding, not bit for bit.")


def kill_somewhere(folder: Path) -> None:
    """Trains in another process, and kills that at a random moment."""
    cache = {"JAX_COMPILATION_CACHE_DIR": os.environ["GRADFLOW_TEST_CACHE"]}
    environment = {**os.environ, **cache, "JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen([sys.executable, echo.__file__, folder], env=environment)
    lines, metrics = random.randint(2, echo.LINES - 10), folder / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not metrics.exists() or metrics.read_bytes().count(b"\n") < lines:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.001)
    time.sleep(random.uniform(0, 0.2))  # anywhere in a chunk, or in the writing of a checkpoint
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert metrics.read_bytes().count(b"\n") < echo.LINES


def test_a_killed_training_goes_on_and_ends_with_the_same_bits(tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    expected = echo.train(whole)
    kill_somewhere(killed)
    resumed = echo.train(killed)
    metrics = (whole / "metrics.jsonl").read_bytes()
    assert metrics.count(b"\n") == echo.LINES
    assert (killed / "metrics.jsonl").read_bytes() == metrics
    assert (resumed.state.key == expected.state.key).all()
    without_keys = [p._replace(state=p.state._replace(key=None)) for p in (resumed, expected)]
    jax.tree.map(np.testing.assert_array_equal, *without_keys)
    np.testing.assert_array_equal(resumed.state.died_at, [-1, -1, 2])
    rows = [json.loads(line) for line in metrics.splitlines()]
    logged = np.array([row["loss"] for row in rows], float)
    np.testing.assert_array_equal(logged, expected.metrics["loss"])


LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
from gradflow.train.checkpoint import Checkpoints

with Checkpoints(Path(sys.argv[1]), {}) as checkpoints:
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**14, 2**14))
    try:
        checkpoints.save(0, {name: np.random.rand(3000) for name in "abc"}, {})
    except OSError as error:
        print(error.strerror)
"""


def test_a_checkpoint_that_has_no_room_is_an_error_without_others(tmp_path):
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "checkpoints")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout, done.stderr, done.returncode) == ("File too large\n", "", 0)
