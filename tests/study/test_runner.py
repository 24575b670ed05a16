import dataclasses
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import xarray
from absl import logging

from gradflow import study
from gradflow.cores import PATIENCE
from gradflow.locks import LOCK, OWNER, locked
from gradflow.study.settings import SOONER
from gradflow.study.store import read_verified

RECORD = {"config.json", "env.json", "result.nc", "figure.pdf", "figure.png", "DONE"}
QUICK = ("--quick", "--cells=lstm")


def main(*argv: object, **parts: object) -> int:
    experiment = dataclasses.replace(tiny.EXPERIMENT, **parts)
    return study.main(experiment, argv=[str(part) for part in argv])


def bare(config: tiny.Config, once: study.Once = study.call) -> xarray.Dataset:
    """One unit, as small as can be, which shows what JAX is set to."""
    third = jnp.ones(config.num_steps) / 3
    return xarray.Dataset({"third": ("lag", np.asarray(third))})


def plain(dataset: xarray.Dataset):
    from matplotlib.figure import Figure

    return Figure()


BARE = {
    "run": bare,
    "figure": plain,
    "summary": lambda dataset: f"third {dataset.third.dtype}",
    "claims": lambda dataset: [],
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert main("--num_steps=4", f"--workdir={folder}") == 0
    return folder


def test_a_run_leaves_its_record_and_nothing_else(finished):
    assert {path.name for path in finished.iterdir()} == RECORD
    stored = study.read_dataset(finished / "result.nc")
    expected = np.arange(4) * np.log([[0.5], [0.25]])
    for cell in ("lstm", "gru"):
        np.testing.assert_allclose(stored.log_norm.sel(cell=cell), expected, rtol=1e-15)
    xarray.testing.assert_equal(stored, tiny.run(tiny.Config(num_steps=4)))  # with no record
    assert stored.attrs["title"] == "Powers of a gain vanish."
    assert stored.attrs["experiment"] == "tiny"
    config = json.loads((finished / "config.json").read_text())
    assert json.loads(stored.attrs["config"]) == config["config"]
    assert config["experiment"] == "tiny"
    assert config["config"]["num_steps"] == 4


def test_the_default_folder_lies_under_results(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main("--quick", "--num_seeds=3", **BARE) == 0
    (folder,) = (tmp_path / "results" / "tiny").iterdir()
    assert re.fullmatch(r"num_seeds=3,num_steps=3-[0-9a-f]{8}", folder.name)
    shown = capsys.readouterr().out
    assert shown == f"recorded in results/tiny/{folder.name}\nthird float64\n"


@pytest.mark.parametrize(
    ("flags", "verdict"),
    [
        (["--quick"], "quick: too small to judge"),
        (["--quick", "--num_steps=4"], "quick: too small to judge"),
        (["--quick", "--num_steps=4", "--num_seeds=5"], "supported"),
        (["--num_steps=3", "--num_seeds=2"], "quick: too small to judge"),
        (["--num_steps=3"], "supported"),
        ([], "supported"),
    ],
)
def test_a_run_of_the_quick_sizes_is_not_judged_also_when_it_is_read_again(
    tmp_path, capsys, flags, verdict
):
    for _ in range(2):
        assert main(*flags, f"--workdir={tmp_path}/run", figure=plain) == 0
        assert f"\n{verdict}: Powers of a gain below one vanish." in capsys.readouterr().out
    stored = study.read_dataset(tmp_path / "run" / "result.nc")
    assert ("quick" in stored.attrs) == (verdict != "supported")


def test_a_finished_run_is_shown_and_not_run_again(finished, capsys):
    before = {path.name: path.stat().st_mtime_ns for path in finished.iterdir()}

    def fail(*_arguments: object) -> None:
        pytest.fail("it was run or drawn again")

    assert main("--num_steps=4", f"--workdir={finished}", run=fail, figure=fail) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines() == [
        f"{finished} is finished. --overwrite runs it again.",
        f"smallest log norm {3 * np.log(0.25):.6f}",
        "supported: Powers of a gain below one vanish. (measured: smallest log norm -4.159)",
    ]
    assert {path.name: path.stat().st_mtime_ns for path in finished.iterdir()} == before


def test_another_configuration_is_refused_in_one_line(finished, capsys):
    assert main("--num_steps=5", "--bias=2", f"--workdir={finished}") == 1
    shown = capsys.readouterr().err
    assert "num_steps is 4 there and 5 here, bias is null there and 2.0 here. Choose" in shown
    assert shown.count("\n") == 1


def test_drawing_again_needs_only_the_result_and_gives_the_same_bytes(finished, tmp_path):
    for name in ("result.nc", "env.json"):
        (tmp_path / name).write_bytes((finished / name).read_bytes())

    def fail(*_arguments: object) -> None:
        pytest.fail("it was run again")

    assert main("--replot", f"--workdir={tmp_path}", run=fail) == 0
    assert {path.name for path in tmp_path.iterdir()} == RECORD - {"config.json", "DONE"}
    for name in ("figure.pdf", "figure.png"):
        assert (tmp_path / name).read_bytes() == (finished / name).read_bytes()


def test_drawing_again_without_a_result_is_refused(tmp_path, capsys):
    assert main("--replot", f"--workdir={tmp_path}/none") == 1
    message = "result.nc does not exist. Run the experiment without --replot"
    assert message in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_a_finished_run_whose_result_is_damaged_says_so(tmp_path, capsys):
    assert main(f"--workdir={tmp_path}", **BARE) == 0
    (tmp_path / "result.nc").write_bytes(b"damaged")
    assert main(f"--workdir={tmp_path}", **BARE) == 1
    shown = capsys.readouterr().err
    assert "cannot be read as netCDF" in shown and "Run it again with --overwrite." in shown
    assert main(f"--workdir={tmp_path}", "--overwrite", **BARE) == 0
    assert len(study.read_dataset(tmp_path / "result.nc").third) == 6


def test_overwriting_replaces_a_run_of_another_configuration(tmp_path):
    assert main("--num_steps=2", f"--workdir={tmp_path}", **BARE) == 0
    assert main("--num_steps=5", f"--workdir={tmp_path}", "--overwrite", **BARE) == 0
    assert len(study.read_dataset(tmp_path / "result.nc").third) == 5
    assert json.loads((tmp_path / "config.json").read_text())["config"]["num_steps"] == 5


def test_the_precision_is_the_configurations_and_what_was_set_comes_back(tmp_path, capsys):
    seen = {}

    def run(config: tiny.Config, once: study.Once) -> xarray.Dataset:
        names = ("jax_enable_x64", "jax_default_matmul_precision", "jax_log_compiles")
        seen.update({name: jax.config.values[name] for name in names})
        seen["verbosity"] = logging.get_verbosity()
        return bare(config, once)

    before = dict(jax.config.values), logging.get_verbosity()
    assert main("--precision=float32", f"--workdir={tmp_path}/a", **{**BARE, "run": run}) == 0
    assert seen == {
        "jax_enable_x64": False,
        "jax_default_matmul_precision": "highest",
        "jax_log_compiles": False,
        "verbosity": 0,
    }
    assert capsys.readouterr().out.endswith("third float32\n")
    assert study.read_dataset(tmp_path / "a" / "result.nc").third.dtype == np.float32
    flags = ("--jax_default_matmul_precision=high", "--jax_debug_nans", "--verbosity=1")
    assert main(*flags, f"--workdir={tmp_path}/b", **{**BARE, "run": run}) == 0
    assert seen["jax_enable_x64"] and seen["jax_default_matmul_precision"] == "high"
    assert seen["verbosity"] == 1
    assert (dict(jax.config.values), logging.get_verbosity()) == before


def test_compiled_programs_are_kept_on_demand(tmp_path):
    seen = []

    def run(config: tiny.Config, once: study.Once) -> xarray.Dataset:
        seen.append(jax.config.values["jax_compilation_cache_dir"])
        return bare(config, once)

    before = jax.config.values["jax_compilation_cache_dir"]
    argv = (f"--compilation_cache_dir={tmp_path}/cache", f"--workdir={tmp_path}/run")
    assert main(*argv, **{**BARE, "run": run}) == 0
    assert seen == [f"{tmp_path}/cache"]
    assert jax.config.values["jax_compilation_cache_dir"] == before


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("a gain\n  is bad"), "error: a gain is bad (--verbosity=1 shows where)\n"),
        (TypeError("no cell"), "error: no cell (--verbosity=1 shows where)\n"),
        (FileNotFoundError(2, "No such file", "x.csv"), "error: [Errno 2] No such file: 'x.csv' "),
    ],
)
def test_a_fault_of_the_run_is_one_line_and_leaves_nothing(tmp_path, capsys, error, line):
    def fail(config: tiny.Config, once: study.Once) -> xarray.Dataset:
        raise error

    assert main(f"--workdir={tmp_path}/run", run=fail) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith(line) and shown.err.count("\n") == 1
    assert shown.out == ""
    assert os.listdir(tmp_path) == []


def test_a_fault_shows_its_traceback_on_demand(tmp_path, capsys):
    assert main("--fail=run", "--verbosity=1", f"--workdir={tmp_path}/run") == 1
    assert re.search(r"Traceback .*in run\n", capsys.readouterr().err, flags=re.DOTALL)


def test_a_fault_of_the_figure_does_not_cost_the_result(tmp_path, capsys):
    assert main("--fail=figure", f"--workdir={tmp_path}") == 1
    assert "error: the figure is expected to be simple" in capsys.readouterr().err
    assert not (tmp_path / "DONE").exists()

    def fail(*_arguments: object) -> None:
        pytest.fail("it was run again")

    environment = (tmp_path / "env.json").read_text()
    assert main("--fail=figure", f"--workdir={tmp_path}", run=fail, figure=plain) == 0
    assert (tmp_path / "DONE").exists()
    assert (tmp_path / "env.json").read_text() == environment


def test_a_record_that_is_removed_during_the_run_is_not_reported_as_finished(tmp_path, capsys):
    def remove(dataset: xarray.Dataset):
        shutil.rmtree(tmp_path / "run")
        return plain(dataset)

    assert main(f"--workdir={tmp_path}/run", run=bare, figure=remove) == 1
    assert "Expected config.json, result.nc in " in capsys.readouterr().err
    assert not (tmp_path / "run" / "DONE").exists()


def test_a_bad_configuration_is_one_line(tmp_path, capsys):
    assert main(f"--workdir={tmp_path}/run", "--quick", quick={"num_steps": 0}) == 1
    assert "error: num_steps=0: Expected a number above zero" in capsys.readouterr().err


def test_a_run_that_gives_no_dataset_is_refused(tmp_path, capsys):
    assert main(f"--workdir={tmp_path}/run", run=lambda config, once: 3) == 1
    message = "Expected run to return an xarray.Dataset, got int. Put its results into a Dataset."
    assert message in capsys.readouterr().err


def test_a_bad_flag_is_one_line_and_code_2(tmp_path, capsys):
    assert main(f"--workdir={tmp_path}/run", "--num_step=3") == 2
    assert capsys.readouterr().err == (
        "error: Unknown flag --num_step. Did you mean --num_steps? "
        "--helpshort lists the known ones.\n"
    )
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_written_stops_the_run_before_it_starts(tmp_path, capsys):
    (tmp_path / "file").write_text("")

    def fail(*_arguments: object) -> None:
        pytest.fail("it was run")

    assert main(f"--workdir={tmp_path}/file/run", run=fail) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_without_a_device_the_run_stops_in_one_line(tmp_path, capsys, monkeypatch):
    def missing() -> None:
        raise RuntimeError("Unable to initialize backend 'tpu'")

    monkeypatch.setattr(jax, "devices", missing)
    assert main(f"--workdir={tmp_path}/run") == 1
    message = "JAX finds no device: Unable to initialize backend 'tpu'. Choose others with --jax_pl"
    assert message in capsys.readouterr().err


def test_without_a_gpu_the_run_stops_in_one_line(tmp_path):
    shown = script(0, "--jax_platforms=cuda", f"--workdir={tmp_path}/run")
    assert shown.returncode == 1 and shown.stderr.count("\n") == 1
    assert "error: JAX finds no device: " in shown.stderr


def test_a_number_of_devices_can_be_given(tmp_path):
    shown = script(0, "--quick", "--jax_num_cpu_devices=1", f"--workdir={tmp_path}/run")
    assert (shown.returncode, shown.stderr) == (0, "")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MemoryError("Unable to allocate 7.28 TiB"), "error: This run needs more memory than this"),
        (OverflowError("too large for int32"), "error: too large for int32 (--verbosity=1"),
        (RecursionError("maximum depth"), "error: maximum depth (--verbosity=1"),
        (jax.errors.JaxRuntimeError("INTERNAL: x"), "error: INTERNAL: x (--verbosity=1"),
        (FloatingPointError("nan in mul"), "error: nan in mul (--verbosity=1"),
    ],
)
def test_a_limit_of_the_machine_is_one_line(tmp_path, capsys, error, line):
    def fail(config: tiny.Config, once: study.Once) -> xarray.Dataset:
        raise error

    assert main(f"--workdir={tmp_path}/run", run=fail) == 1
    shown = capsys.readouterr().err
    assert shown.startswith(line) and shown.count("\n") == 1


LIMITED = """
import dataclasses, resource, sys
import jax, jax.numpy as jnp
import tiny
from gradflow import study

def fail(config, once):
    jax.devices()  # whose threads need memory of their own
    resource.setrlimit(resource.RLIMIT_DATA, (4 * 10**9, 4 * 10**9))
    return jnp.ones(2**43 // 10**4)  # 7 GB in float64

sys.exit(study.main(dataclasses.replace(tiny.EXPERIMENT, run=fail), sys.argv[1:]))
"""


def test_an_allocation_that_fails_names_what_to_reduce(tmp_path):
    # In a process of its own: a worker of the tests may have as much memory already.
    command = [sys.executable, "-c", LIMITED, f"--workdir={tmp_path}/run", "--precision=float64"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert "This run needs more memory than this machine has, " in done.stderr
    assert "(RESOURCE_EXHAUSTED: Out of memory allocating" in done.stderr
    assert done.stderr.endswith(" Reduce --num_seeds or --num_steps. (--verbosity=1 shows where)\n")


def test_a_fault_of_the_code_keeps_its_traceback(tmp_path):
    with pytest.raises(KeyError, match="lstm"):
        main(f"--workdir={tmp_path}/run", run=lambda config, once: {}["lstm"])


def test_an_interrupted_run_can_be_resumed(tmp_path, capsys):
    def interrupt(config: tiny.Config, once: study.Once) -> xarray.Dataset:
        once("a", lambda: bare(config))
        raise KeyboardInterrupt

    assert main(f"--workdir={tmp_path}", run=interrupt) == 130
    shown = capsys.readouterr().err
    assert shown == "Interrupted. The same command without --overwrite resumes.\n"
    assert main(f"--workdir={tmp_path}", **BARE) == 0
    assert {path.name for path in tmp_path.iterdir()} == RECORD


def test_the_help_is_shown_and_nothing_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for flag in ("--helpshort", "--help"):
        assert main(flag) == 0
        assert capsys.readouterr().out.startswith("Powers of a gain vanish.\n")
    assert os.listdir(tmp_path) == []


def test_the_record_knows_the_machine_but_nobodys_name(tmp_path, monkeypatch):
    for name in ("USER", "LOGNAME", "HOSTNAME", "HOME"):
        monkeypatch.setenv(name, f"/home/planted-{name}")
    monkeypatch.setattr(socket, "gethostname", lambda: "planted-host")
    monkeypatch.setattr(platform, "node", lambda: "planted-host")
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/home/planted-user/dump --xla_x=1")
    log = tmp_path / "planted-folder" / "log"
    log.mkdir(parents=True)
    assert main(*QUICK, f"--log={log}", f"--workdir={tmp_path}/planted-folder/run") == 0
    text = (log.parent / "run" / "env.json").read_text()
    assert "planted" not in text and str(tmp_path) not in text
    assert not re.search(r"(?<![\w.])/\w", text)
    found = json.loads(text)
    assert found["command"] == "tiny --quick --cells=lstm --log=log --workdir=run"
    assert found["xla_flags"] == f"--xla_dump_to=dump --xla_x=1 {SOONER} {PATIENCE}"
    assert found["backend"] == "cpu" and found["x64"] is True
    assert found["matmul_precision"] == "highest" and found["precision"] == "float64"
    assert found["jax"] == jax.__version__
    assert found["threefry_partitionable"] is jax.config.values["jax_threefry_partitionable"]
    assert 0 < found["seconds"] < 60
    assert {"git_commit", "git_dirty", "device_kind", "host_peak_bytes"} <= found.keys()


def script(hash_seed: int, *argv: str, **variables: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed), **variables}
    command = [sys.executable, tiny.__file__, *argv]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_a_killed_run_goes_on_where_it_was_and_ends_with_the_same_bytes(tmp_path):
    log, run = tmp_path / "log.txt", tmp_path / "run"
    log.write_text("")
    argv = ("--cells=lstm,gru,rnn", f"--log={tmp_path}", "--kill_at=gru")
    killed = script(1, *argv, f"--workdir={run}")
    assert killed.returncode == -signal.SIGKILL
    assert {path.name for path in run.iterdir()} == {"config.json", "parts", LOCK, OWNER}
    assert log.read_text() == "computed lstm\nkilled gru\n"

    resumed = script(2, *argv, f"--workdir={run}")
    assert resumed.returncode == 0, resumed.stderr
    assert log.read_text() == "computed lstm\nkilled gru\ncomputed gru\ncomputed rnn\n"
    assert {path.name for path in run.iterdir()} == RECORD
    assert json.loads((run / "env.json").read_text())["reused_units"] == 1
    shown = f"recorded in {run}\nsmallest log norm {5 * np.log(0.25):.6f}\nsupported: Powers "
    assert resumed.stdout.startswith(shown)
    assert resumed.stderr == ""

    whole = tmp_path / "whole"  # never killed, in another process
    assert main(*argv, f"--workdir={whole}") == 0
    assert (whole / "result.nc").read_bytes() == (run / "result.nc").read_bytes()
    drawn = {name: (run / name).read_bytes() for name in ("figure.pdf", "figure.png")}
    assert main("--replot", f"--workdir={run}") == 0
    assert {name: (run / name).read_bytes() for name in drawn} == drawn


def test_a_file_that_is_run_ends_with_the_exit_code(tmp_path):
    failed = script(0, "--fail=run", "--jax_platforms=cpu", f"--workdir={tmp_path}/run")
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: the gain is expected to be small")
    assert "Traceback" not in failed.stderr


def test_two_runs_in_one_folder_exclude_each_other(tmp_path, capsys):
    def run(config: tiny.Config, once: study.Once) -> xarray.Dataset:
        assert main(f"--workdir={tmp_path}/run", **BARE) == 1
        return bare(config, once)

    assert main(f"--workdir={tmp_path}/run", **{**BARE, "run": run}) == 0
    shown = capsys.readouterr()
    assert "run to be free, but this process is using this folder in a run that has" in shown.err
    assert shown.err.count("\n") == 1
    assert {path.name for path in (tmp_path / "run").iterdir()} == RECORD
    with locked(tmp_path / "run"):  # what is finished is only read
        assert main(f"--workdir={tmp_path}/run", **BARE) == 0
        assert main(f"--workdir={tmp_path}/run", "--overwrite", **BARE) == 1
        assert main(f"--workdir={tmp_path}/run", "--replot", **BARE) == 1


def test_a_changed_file_is_another_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("one")
    argv = ("--quick", "--cells=mine.py:cell")
    assert main(*argv, **BARE) == 0
    assert main(*argv, "--workdir=run", **BARE) == 0
    stored = read_verified(tmp_path / "run" / "config.json")
    assert list(stored["files"]) == ["mine.py"]
    (tmp_path / "mine.py").write_text("two")
    capsys.readouterr()
    assert main(*argv, "--workdir=run", **BARE) == 1
    assert re.search(
        r"error: Expected the file mine.py as it was when the run in run began \(digest \w{16}\), "
        r"got \w{16}. Run with --overwrite, or choose another --workdir.",
        capsys.readouterr().err,
    )
    assert main(*argv, "--workdir=run", "--overwrite", **BARE) == 0
    assert main(*argv, **BARE) == 0
    assert len(os.listdir(tmp_path / "results" / "tiny")) == 2
    (tmp_path / "mine.py").write_text("one")
    capsys.readouterr()
    assert main(*argv, **BARE) == 0
    assert "is finished" in capsys.readouterr().out


def test_what_a_study_reads_besides_is_a_part_of_the_run(tmp_path):
    data = tmp_path / "data"
    data.write_text("one")
    parts = {**BARE, "files": lambda config: [str(data)]}
    assert main(f"--workdir={tmp_path}/run", **parts) == 0
    assert main(f"--workdir={tmp_path}/run", **parts) == 0
    data.write_text("two")
    assert main(f"--workdir={tmp_path}/run", **parts) == 1
    text = (tmp_path / "run" / "config.json").read_text()
    assert '"data":' in text and str(tmp_path) not in text


@pytest.mark.parametrize("content", [b"", b"null", b"\xff"])
def test_a_damaged_record_has_a_cure_that_works(tmp_path, capsys, content):
    def interrupt(dataset: xarray.Dataset) -> None:
        raise KeyboardInterrupt

    for name, cure in (("env.json", ()), ("config.json", ("--overwrite",))):
        folder = tmp_path / name.partition(".")[0]
        assert main(f"--workdir={folder}", **{**BARE, "figure": interrupt}) == 130
        (folder / name).write_bytes(content)
        capsys.readouterr()
        assert main(f"--workdir={folder}", **BARE) == 1
        shown = capsys.readouterr().err
        assert f"{folder}/{name}" in shown and "--overwrite" in shown and shown.count("\n") == 1
        if not cure:  # the other cure that the message has, which keeps the numbers
            (folder / name).unlink()
        assert main(f"--workdir={folder}", *cure, **BARE) == 0
        assert (folder / "DONE").exists()


def test_a_name_of_a_backend_that_matplotlib_does_not_know_does_no_harm(tmp_path, finished):
    argv = ["--num_steps=4", f"--workdir={tmp_path}/run"]
    done = script(0, *argv, MPLBACKEND="nonsense")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "figure.png").exists()
    assert (tmp_path / "run" / "result.nc").read_bytes() == (finished / "result.nc").read_bytes()


def test_a_python_without_docstrings_is_refused_in_one_line(tmp_path):
    done = script(0, f"--workdir={tmp_path}/run", PYTHONOPTIMIZE="2")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "error: Expected Python with docstrings" in done.stderr
    assert "Remove -OO, or unset PYTHONOPTIMIZE." in done.stderr
    assert os.listdir(tmp_path) == []


def test_the_record_has_the_number_of_devices(finished):
    environment = read_verified(finished / "env.json")
    assert environment["num_devices"] == jax.device_count()
    assert environment["other_num_devices"] == []
