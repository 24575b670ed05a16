"""Loops in JAX and Keras that are watched, and the record itself."""

import json
import os
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradflow
from gradflow import flow
from gradflow.cells import gru, rnn
from gradflow.report import read_watch, watch
from gradflow.report.live.measure import Measured
from gradflow.report.live.monitor import Monitor, Settings
from gradflow.report.live.record import MOST_LAGS, Record, line_of

T, N, D, H = 7, 5, 3, 4


def watched(model, folder, **options):
    options = {"every": 1, "max_cost": None} | options
    return watch(model, folder=str(folder), **options)


def test_a_cell_is_measured_every_few_steps(tmp_path, key):
    cell = gru(D, H)
    monitor = watched(cell, tmp_path, every=10, num_sequences=3)
    params = cell.init(key)
    inputs = jax.random.normal(key, (T, N, D))
    for step in (5, 6, 14, 15, 24, 30):
        monitor(step, params, inputs)
    found = monitor.dataset()
    assert found["update"].values.tolist() == [5, 15, 30]
    curves = [flow.log_norms(cell, params, inputs[:, k]) for k in range(3)]
    np.testing.assert_allclose(found.log_norms.values[0, 0], np.median(curves, 0), rtol=1e-8)
    parts = [flow.saturation(flow.gates(cell, params, inputs[:, k])) for k in range(3)]
    shut, opened = np.mean([part["z"] for part in parts], axis=(0, 1))
    np.testing.assert_allclose(found.saturation.sel(gate="z").values[0, 0], [shut, opened])
    slope = np.polyfit(np.arange(T + 1), np.median(curves, 0), 1)[0]
    np.testing.assert_allclose(found.factor[0, 0], np.exp(slope))
    assert found.saturation.dims == ("layer", "update", "gate", "end")
    assert json.loads((tmp_path / "watch.jsonl").read_text().splitlines()[0])["session"]
    monitor.close()
    assert "updates 5 to 30" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_cells_by_name_and_functions_of_nets(tmp_path, key):
    cells = {"a": rnn(D, H), "b": gru(H, H)}
    params = {name: cell.init(key) for name, cell in cells.items()}
    x, y = jnp.ones((T, N, D)), jnp.ones((T, N, H))
    monitor = watched(cells, tmp_path)
    monitor(1, params, {"a": x, "b": y})
    assert monitor.dataset()["layer"].values.tolist() == ["a", "b"]
    again = watched(lambda p: {"one": (cells["a"], p)}, tmp_path)
    again(1, params["a"], x)
    assert read_watch(tmp_path)["layer"].values.tolist() == ["one"]  # the newest session


def test_variables_of_flax(tmp_path, key):
    linen = pytest.importorskip("flax.linen")
    module = linen.RNN(linen.GRUCell(H))
    variables = module.init(key, jnp.ones((N, T, D), jnp.float32))
    monitor = watched(gradflow.load, tmp_path)
    inputs = jax.random.normal(key, (T, N, D))
    monitor(1, variables, inputs)
    layer = gradflow.load(variables, verify=False).layers[0]
    params = jax.tree.map(jnp.asarray, layer.params)
    curves = [flow.log_norms(layer.cell, params, inputs[:, k]) for k in range(4)]
    found = monitor.dataset()
    assert found["layer"].values == [layer.name]
    np.testing.assert_allclose(found.log_norms.values[0, 0], np.median(curves, 0), rtol=1e-7)


@pytest.mark.parametrize(
    "batch, message",
    [
        (np.ones((T, D)), "Expected inputs of shape"),
        ({"c": np.ones((T, N, D))}, "Expected inputs of the layers cell, got c"),
        ({}, "StopIteration"),
        (None, "TypeError"),
    ],
)
def test_wrong_batches_are_recorded_and_not_raised(tmp_path, capsys, key, batch, message):
    cell = rnn(D, H)
    monitor = watched(cell, tmp_path)
    monitor(1, cell.init(key), batch)
    assert message in (tmp_path / "watch.jsonl").read_text()
    assert "training goes on" in capsys.readouterr().err


def subjects_never():
    raise AssertionError("measured")


def test_measurements_wait_for_their_fraction_of_the_time(tmp_path, monkeypatch):
    now = [0.0]
    clock = types.SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr("gradflow.report.live.monitor.time", clock)
    monitor = Monitor(Settings(10, str(tmp_path), None, 4, "spectral", 0.02, False, False), "x")
    monitor._measurer = lambda subjects: now.__setitem__(0, now[0] + 1.0) or {}
    monitor._measurer.compiling = 0.0
    measured = []
    for update in range(1, 1001):
        now[0] += 0.5
        if monitor.is_due(update):
            monitor.measure(update, list)
            measured.append(update)
    # The second waits for (1 + 1) / 0.02 = 100 seconds, and each later one for 50 more.
    assert np.allclose(measured[:4], [1, 198, 296, 394], atol=2)
    assert monitor.spent <= 0.02 * now[0]


def test_a_new_length_is_padded_instead_of_compiled(tmp_path, key):
    cell = rnn(D, H)
    monitor = watched(cell, tmp_path, num_sequences=2)
    params, inputs = cell.init(key), jax.random.normal(key, (9, 2, D))
    for step, length in enumerate((8, 7, 5, 6, 9), 1):
        monitor(step, params, inputs[:length])
    assert len(monitor._measurer._programs) == 3  # 8, up to 8 with padding, 16
    found = monitor.dataset().log_norms.values[0]
    for row, length in enumerate((8, 7, 5, 6, 9)):
        curves = [flow.log_norms(cell, params, inputs[:length, k]) for k in range(2)]
        np.testing.assert_allclose(found[row, : length + 1], np.median(curves, 0), atol=1e-9)
        assert np.isnan(found[row, length + 1 :]).all()


def measured(log_norms, **changes):
    given = {"horizon": np.inf, "factor": 0.5, "nonfinite_step": -1, "saturation": {}}
    return Measured(np.asarray(log_norms), **(given | changes))


def test_infinities_and_nan_survive_the_file(tmp_path):
    record = Record(tmp_path, {"framework": "x"})
    line = line_of("a", measured([0.0, -np.inf, np.nan, np.inf], factor=0.0), 3)
    record.add({"update": 4, "seconds": 0.1, "layers": [line]})
    text = (tmp_path / "watch.jsonl").read_text()
    assert "NaN" not in text and "Infinity" not in text
    found = read_watch(tmp_path)
    np.testing.assert_array_equal(found.log_norms.values[0, 0], [0.0, -np.inf, np.nan, np.inf])
    assert found.horizon.values[0, 0] == np.inf and found.needed_lag.values[0, 0] == 3


def test_long_curves_are_thinned():
    line = line_of("a", measured(-np.arange(5001.0)), 5000)
    assert len(line["lags"]) == MOST_LAGS and line["lags"][-1] == 5000
    np.testing.assert_array_equal(line["log_norms"], -np.array(line["lags"]))


KILLED = """
import os, signal, jax, jax.numpy as jnp
from gradflow.cells import rnn
from gradflow.report import watch
cell = rnn(2, 3)
monitor = watch(cell, every=1, folder={folder!r}, max_cost=None)
params = cell.init(jax.random.key(0))
for step in range(1, 4):
    monitor(step, params, jnp.ones((5, 2, 2)))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_training_keeps_its_record(tmp_path):
    code = KILLED.format(folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode == -9
    assert read_watch(tmp_path)["update"].values.tolist() == [1, 2, 3]
    path = tmp_path / "watch.jsonl"
    os.truncate(path, path.stat().st_size - 30)  # within a line
    assert read_watch(tmp_path)["update"].values.tolist() == [1, 2]
    record = Record(tmp_path, {})
    record.add({"update": 1, "seconds": 0.1, "layers": [line_of("b", measured([0.0]), 1)]})
    assert read_watch(tmp_path)["layer"].values.tolist() == ["b"]


def test_a_full_disk_does_not_end_the_training(tmp_path, capsys, key, monkeypatch):
    cell = rnn(D, H)
    monitor = watched(cell, tmp_path)

    def full(self, line):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Record, "_append", full)
    for step in (1, 2):
        monitor(step, cell.init(key), jnp.ones((T, N, D)))
    assert monitor.dataset().sizes["update"] == 2  # in memory
    assert capsys.readouterr().err.count("No space left") == 1


def test_boards_get_the_scalars(tmp_path, key, monkeypatch):
    pytest.importorskip("tensorboardX")
    logged = []
    run = types.SimpleNamespace(log=lambda scalars, commit: logged.append((scalars, commit)))
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(run=run))
    cell = gru(D, H)
    with watched(cell, tmp_path, tensorboard=True, wandb=True) as monitor:
        monitor(3, cell.init(key), jnp.ones((T, N, D)))
    ((scalars, commit),) = logged
    assert not commit and scalars["gradflow/update"] == 3
    np.testing.assert_allclose(scalars["gradflow/cell/factor"], monitor.dataset().factor[0, 0])
    assert "gradflow/cell/z_open" in scalars
    assert list(tmp_path.glob("events*"))


def test_what_cannot_be_watched_is_refused(tmp_path, monkeypatch):
    folder, cell = str(tmp_path), rnn(D, H)
    with pytest.raises(TypeError, match="Expected a PyTorch module, .* got int"):
        watch(3, folder=folder)
    with pytest.raises(ValueError, match="Expected every"):
        watch(cell, folder=folder, every=0)
    with pytest.raises(ValueError, match="Expected num_sequences"):
        watch(cell, folder=folder, num_sequences=0)
    with pytest.raises(ValueError, match="Expected needed_lag"):
        watch(cell, folder=folder, needed_lag=0)
    with pytest.raises(ValueError, match="Expected max_cost"):
        watch(cell, folder=folder, max_cost=0.0)
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(run=None))
    with pytest.raises(ValueError, match="Expected an active run"):
        watch(cell, folder=folder, wandb=True)
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ValueError, match="Event files need tensorboardX"):
        watch(cell, folder=folder, tensorboard=True)
    with pytest.raises(ValueError, match="Expected watch.jsonl in"):
        read_watch(tmp_path / "none")
