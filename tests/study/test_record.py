import contextlib
import dataclasses
import json
import os
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray

from gradflow.study.config import identity
from gradflow.study.experiment import call
from gradflow.study.record import Record, default_workdir, params_folder, read_environment
from gradflow.study.store import read_dataset, read_verified

IDENTITY = {"experiment": "tiny", "config": {"size": 3, "gains": (0.5, 1.0)}}
OTHER = {"experiment": "tiny", "config": {"size": 4, "gains": (0.5, 1.0)}}


class Work:
    """A unit of work that counts how often it is done."""

    def __init__(self, value: float = 1.0) -> None:
        self.count, self.value = 0, value

    def __call__(self) -> xarray.Dataset:
        self.count += 1
        return xarray.Dataset({"a": ("x", np.full(3, self.value))})


def files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_a_unit_is_done_once_for_all_runs_of_the_same_configuration(tmp_path):
    work = Work(2.5)
    for reused in (0, 1, 1):
        record = Record(tmp_path / "run", IDENTITY)
        record.check()
        np.testing.assert_array_equal(record.once("cell=lstm(b=2)", work).a, [2.5] * 3)
        assert record.reused == reused
    assert work.count == 1
    assert read_verified(tmp_path / "run" / "config.json") == {
        "experiment": "tiny",
        "config": {"size": 3, "gains": [0.5, 1.0]},
    }


def test_the_seconds_of_units_that_another_process_did_are_known(tmp_path, monkeypatch):
    clock = iter((10.0, 17.5, 20.0, 20.25))
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    first, again = (Record(tmp_path / "run", IDENTITY) for _ in range(2))
    for record, seconds in ((first, 0.0), (again, 7.5)):
        assert record.once("a", Work()).attrs == {}
        assert record.reused_seconds == seconds
    again.once("b", Work())
    assert again.reused_seconds == 7.5


def test_a_unit_is_the_same_whether_it_was_stored_or_not(tmp_path):
    def unit() -> xarray.Dataset:
        names = np.array(["lstm", "gru"], dtype=object)
        return xarray.Dataset({"cell": ("x", names)}, attrs={"gains": [0.5, 1.0]})

    first, second = (Record(tmp_path, IDENTITY).once("a", unit) for _ in range(2))
    assert first.cell.dtype == second.cell.dtype
    assert type(first.attrs["gains"]) is type(second.attrs["gains"])


def test_units_of_other_names_and_configurations_are_others(tmp_path):
    record = Record(tmp_path, IDENTITY)
    units = [record.once(name, Work(value)) for name, value in (("a/b", 1.0), ("a b", 2.0))]
    units.append(Record(tmp_path, OTHER).once("a/b", Work(3.0)))
    assert [float(unit.a[0]) for unit in units] == [1.0, 2.0, 3.0]


def test_a_name_used_twice_in_one_run_is_refused(tmp_path):
    record = Record(tmp_path, IDENTITY)
    record.once("a", Work())
    with pytest.raises(ValueError, match="Expected a name .*, got 'a' twice .*[.] Put every"):
        record.once("a", Work())


@pytest.mark.parametrize("damage", ["empty", "text", "half"])
def test_a_damaged_unit_is_done_again(tmp_path, damage):
    Record(tmp_path, IDENTITY).once("a", Work(1.0))
    (path,) = tmp_path.glob("parts/a-*.nc")
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "text": b"hello", "half": whole[: len(whole) // 2]}[damage])
    work = Work(7.0)
    assert float(Record(tmp_path, IDENTITY).once("a", work).a[0]) == 7.0
    assert work.count == 1
    assert float(read_dataset(path).a[0]) == 7.0


def test_nothing_is_written_before_a_unit_is_done(tmp_path):
    def fail() -> xarray.Dataset:
        raise ValueError("bad gain")

    record = Record(tmp_path / "run", IDENTITY)
    record.check()
    with pytest.raises(ValueError, match="bad gain"):
        record.once("a", fail)
    assert os.listdir(tmp_path) == []


def test_a_run_of_another_configuration_is_refused(tmp_path):
    Record(tmp_path, IDENTITY).once("a", Work())
    before = files(tmp_path)
    message = r"holds a run of another .*: size is 3 there and 4 here[.] Choose .* --overwrite"
    with pytest.raises(ValueError, match=message):
        Record(tmp_path, OTHER).check()
    with pytest.raises(ValueError, match='experiment is "tiny" there and "big" here'):
        Record(tmp_path, {**IDENTITY, "experiment": "big"}).check()
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    "name", ["config.json", "result.nc", "DONE", "parts/mine.nc", "units/mine", "params/mine"]
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_somebodys_files_are_never_taken_for_a_run(tmp_path, name, overwrite):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text('{"mine": 1}')
    with pytest.raises(ValueError, match=f"got {name.split('/')[0]} and no config.json of"):
        Record(tmp_path, IDENTITY, overwrite).check()
    assert (tmp_path / name).read_text() == '{"mine": 1}'


def test_overwriting_starts_from_nothing_and_leaves_other_files(tmp_path):
    old = Record(tmp_path, IDENTITY)
    old.once("a", Work(1.0))
    old.result(Work(1.0))
    old.finish()
    params_folder(old.once.folder("a")).mkdir()
    (params_folder(old.once.folder("a")) / "lstm.safetensors").write_text("trained")
    assert "params/lstm.safetensors" in files(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / ".result.nc.99.tmp").write_text("left by a killed run")
    record = Record(tmp_path, OTHER, overwrite=True)
    record.check()
    assert not record.done
    assert float(record.once("a", Work(2.0)).a[0]) == 2.0
    record.once("b", Work(3.0))
    new = {"config.json", "parts/a", "parts/b"}
    assert {name.split("-")[0] for name in files(tmp_path)} == {"notes.txt"} | new
    assert json.loads((tmp_path / "config.json").read_text())["config"]["size"] == 4


def test_overwriting_keeps_the_old_run_until_there_is_something_new(tmp_path):
    Record(tmp_path, IDENTITY).result(Work(1.0))
    record = Record(tmp_path, IDENTITY, overwrite=True)
    record.check()
    with pytest.raises(ValueError, match="bad gain"):
        record.once("a", lambda: (_ for _ in ()).throw(ValueError("bad gain")))
    assert float(read_dataset(tmp_path / "result.nc").a[0]) == 1.0


def test_finishing_marks_the_run_and_removes_the_units(tmp_path):
    record = Record(tmp_path, IDENTITY)
    record.once("a", Work())
    record.result(Work())
    record.write_environment({"seconds": 1.5})
    (tmp_path / "parts" / ".b.nc.99.tmp").write_text("left by a killed run")
    assert not record.done
    record.finish()
    assert record.done
    assert files(tmp_path) == {"DONE", "config.json", "result.nc", "env.json"}
    assert not (tmp_path / "parts").exists()
    assert read_environment(tmp_path) == {"seconds": 1.5}
    with pytest.raises(FileNotFoundError, match="env.json .*, got no such file. Run again with"):
        read_environment(tmp_path / "elsewhere")


def test_a_folder_that_cannot_be_made_is_refused_before_any_work(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match=r"run cannot be written, .*file: Not a dir.*[.] Choose"):
        Record(tmp_path / "file" / "run", IDENTITY).check()


def test_a_folder_that_does_not_take_files_is_refused(tmp_path, monkeypatch):
    def refuse(*_args: object, **_options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)  # root may write everywhere
    with pytest.raises(OSError, match="new/run cannot be written, .*: Permission denied[.] Choose"):
        Record(tmp_path / "new" / "run", IDENTITY).check()


def test_checking_leaves_no_trace(tmp_path):
    Record(tmp_path / "new" / "run", IDENTITY).check()
    assert os.listdir(tmp_path) == []


def test_the_default_folder_is_that_of_the_configuration():
    import tiny

    config = tiny.Config(num_steps=9)
    folder = default_workdir(config, identity("tiny", config))
    assert folder.parts[:2] == ("results", "tiny")
    assert folder.name.startswith("num_steps=9-") and len(folder.name) == len("num_steps=9-") + 8
    same, other = dataclasses.replace(config), dataclasses.replace(config, seed=1)
    assert folder == default_workdir(same, identity("tiny", same))
    assert folder != default_workdir(other, identity("tiny", other))
    assert folder != default_workdir(config, identity("tiny", config, {"mine.py": "0f"}))


def test_a_unit_under_way_has_a_folder_of_its_own_until_the_run_is_overwritten(tmp_path):
    first, second = (Record(tmp_path, IDENTITY).once.folder(name) for name in ("a/b", "a b"))
    assert first == Record(tmp_path, IDENTITY).once.folder("a/b") != second
    (first / "checkpoint").write_text("half way")
    assert files(tmp_path) == {"config.json", str((first / "checkpoint").relative_to(tmp_path))}
    record = Record(tmp_path, IDENTITY)
    record.check()
    record.result(Work(1.0))
    record.finish()
    assert (first / "checkpoint").exists()
    assert list(Record(tmp_path, IDENTITY, overwrite=True).once.folder("a/b").iterdir()) == []


def test_a_unit_without_a_record_has_no_folder():
    assert call.folder("a") is None
    assert float(call("a", Work(2.0)).a[0]) == 2.0


FILES = {**IDENTITY, "files": {"mine.py": "0a", "x.csv": "0b"}}


def test_a_run_that_read_another_content_of_its_file_is_refused(tmp_path):
    record = Record(tmp_path, FILES)
    record.once("a", Work())
    Record(tmp_path, FILES).check()
    changed = {**FILES, "files": {"mine.py": "0a", "x.csv": "0c"}}
    message = r"the file x.csv as it was when .* \(digest 0b\), got 0c[.] Run with --overwrite, or"
    for finish in (False, True):
        if finish:
            record.result(Work())
            record.finish()
        with pytest.raises(ValueError, match=message):
            Record(tmp_path, changed).check()
    with pytest.raises(ValueError, match=r"mine.py .*digest 0a\), got no such file[.] Run"):
        Record(tmp_path, IDENTITY).check()
    Record(tmp_path, changed, overwrite=True).check()


def test_a_record_from_before_there_were_digests_is_that_of_no_content(tmp_path):
    Record(tmp_path, IDENTITY).once("a", Work())
    with pytest.raises(ValueError, match=r"mine.py .*\(digest not recorded\), got 0a"):
        Record(tmp_path, FILES).check()


@pytest.mark.parametrize(
    "content", [b"", b"null", b"\xff\0", b'{"experiment": "tiny", "conf', b"[]"]
)
def test_a_damaged_configuration_is_named_and_can_be_overwritten(tmp_path, content):
    old = Record(tmp_path, IDENTITY)
    old.once("a", Work(1.0))
    (tmp_path / ".config.json.99.tmp").write_bytes(b"left by a killed run")
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(
        ValueError, match="config.json.*Replace that run with --overwrite, or choose"
    ):
        Record(tmp_path, IDENTITY).check()
    record = Record(tmp_path, IDENTITY, overwrite=True)
    record.check()
    assert float(record.once("a", Work(2.0)).a[0]) == 2.0
    Record(tmp_path, IDENTITY).check()
    (tmp_path / "config.json").write_bytes(content)
    (tmp_path / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(
            ValueError, match="Beside it are other files, notes.txt. Choose another"
        ):
            Record(tmp_path, IDENTITY, overwrite).check()
    assert "notes.txt" in files(tmp_path) and len(list(tmp_path.glob("parts/*.nc"))) == 1


def test_a_flipped_bit_of_the_configuration_is_never_another_run(tmp_path):
    Record(tmp_path, FILES).begin()
    path = tmp_path / "config.json"
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with contextlib.suppress(ValueError):
            Record(tmp_path, FILES).check()  # it may pass: the checksum alone has lost its name
        Record(tmp_path, OTHER, overwrite=True).check()
        with pytest.raises(ValueError, match="config.json|another configuration|as it was"):
            Record(tmp_path, OTHER).check()


@pytest.mark.parametrize("content", [b"", b'{"seconds": 1', b'{"seconds": 2, "sha256": "0f"}'])
def test_a_damaged_environment_is_named_with_what_to_do(tmp_path, content):
    Record(tmp_path, IDENTITY).write_environment({"seconds": 1.5})
    (tmp_path / "env.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"env.json.*[.] Remove that file, or run again with --ov"):
        read_environment(tmp_path)


def test_units_of_another_number_of_devices_are_reported_once(tmp_path, monkeypatch, caplog):
    first = Record(tmp_path, IDENTITY)
    for name in ("a", "b"):
        assert first.once(name, Work()).attrs == {}
    monkeypatch.setattr(jax, "device_count", lambda: 7)
    again = Record(tmp_path, IDENTITY)
    for name in ("a", "b", "c"):
        again.once(name, Work())
    number = again.other_devices.pop()
    (line,) = caplog.messages
    assert f"were computed on {number} device(s), and this process has 7: its results are" in line
    assert "\n" not in line and not first.other_devices
