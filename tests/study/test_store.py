import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray

from gradflow.study.store import (
    read_dataset,
    read_verified,
    to_json,
    write_dataset,
    write_verified,
)


def dataset() -> xarray.Dataset:
    values = np.array([[0.1, -np.inf, np.nan], [np.inf, 1e-308, 2.0]])
    return xarray.Dataset(
        {
            "log_norm": (("cell", "lag"), values, {"units": "dimensionless"}),
            "small": ("lag", np.arange(3, dtype=np.float32) / 3),
            "cut": ("lag", np.array([True, False, True])),
            "steps": ((), np.int64(7)),
        },
        coords={"cell": ["lstm", "gru(β=2)"], "lag": np.arange(3)},
        attrs={"title": "∂h", "count": 3},
    )


def test_a_dataset_comes_back_as_it_was(tmp_path):
    write_dataset(tmp_path / "a.nc", dataset())
    back = read_dataset(tmp_path / "a.nc")
    xarray.testing.assert_identical(back, dataset())
    assert not any(array.encoding for array in [back, *back.variables.values()])
    assert {name: back[name].dtype for name in back} == {n: dataset()[n].dtype for n in dataset()}
    (tmp_path / "a.nc").unlink()  # it is in memory
    assert float(back.log_norm[0, 0]) == 0.1


def test_the_bytes_know_no_time_and_no_history(tmp_path):
    write_dataset(tmp_path / "a.nc", dataset())
    time.sleep(1.1)  # one tick of the clock that HDF5 would stamp with
    write_dataset(tmp_path / "b.nc", read_dataset(tmp_path / "a.nc"))
    assert (tmp_path / "a.nc").read_bytes() == (tmp_path / "b.nc").read_bytes()


@pytest.mark.parametrize("content", [b"", b"not netCDF", "half"])
def test_a_damaged_file_is_an_os_error(tmp_path, content):
    path = tmp_path / "a.nc"
    write_dataset(path, dataset())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    with pytest.raises(OSError, match=r"a\.nc cannot be read as netCDF"):
        read_dataset(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.nc does not exist"):
        read_dataset(tmp_path / "a.nc")


def test_json_is_strict_and_takes_numpy():
    value = {"a": np.float32(0.5), "b": (np.arange(2), float("-inf")), 3: None, "é": float("nan")}
    assert json.loads(to_json(value), parse_constant=pytest.fail) == {
        "a": 0.5,
        "b": [[0, 1], "-inf"],
        "3": None,
        "é": "nan",
    }
    assert "é" in to_json(value)
    with pytest.raises(TypeError, match="not JSON serializable"):
        to_json({"a": object()})


def flips(path: Path, number: int = 400) -> Iterator[int]:
    """Yields as often as a bit of a file was flipped, of all bits evenly; restores the file."""
    whole = path.read_bytes()
    for bit in np.unique(np.linspace(0, 8 * len(whole) - 1, number).astype(int)).tolist():
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        yield bit
    path.write_bytes(whole)


def test_a_flipped_bit_of_a_dataset_is_never_another_number(tmp_path):
    write_dataset(path := tmp_path / "a.nc", dataset())
    refused = 0
    for _ in flips(path):
        try:
            xarray.testing.assert_identical(read_dataset(path), dataset())
        except OSError as error:
            assert "a.nc cannot be read" in str(error)
            refused += 1
    assert refused > 380
    with pytest.raises(OSError, match="its checksum is another one"):
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        read_dataset(path)


def test_a_dataset_without_a_checksum_is_read_and_any_reader_reads_one_with_it(tmp_path):
    dataset().to_netcdf(tmp_path / "theirs.nc", engine="h5netcdf")
    xarray.testing.assert_identical(read_dataset(tmp_path / "theirs.nc"), dataset())
    write_dataset(tmp_path / "ours.nc", dataset())
    ours = xarray.load_dataset(tmp_path / "ours.nc", engine="h5netcdf")
    xarray.testing.assert_identical(ours, dataset())


def test_a_full_disk_is_an_error_and_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "a.nc"
    write_dataset(path, dataset())
    code = f"""
import resource, signal, xarray
from pathlib import Path
from gradflow.study.store import write_dataset
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))
try:
    write_dataset(Path({str(path)!r}), xarray.Dataset({{"a": ("x", range(1000))}}))
except OSError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        f"Expected room for {path}, got: File too large. Free some space and run it again: a "
        "study resumes.\n"
    )
    assert os.listdir(tmp_path) == ["a.nc"]
    xarray.testing.assert_identical(read_dataset(path), dataset())


def test_a_flipped_bit_of_a_mapping_is_never_another_value(tmp_path):
    value = {"experiment": "tiny", "config": {"size": 3, "rates": [0.1, -2e-300], "é": None}}
    write_verified(path := tmp_path / "a.json", value)
    assert read_verified(path) == value
    for _ in flips(path, 10_000):
        try:
            found = read_verified(path)
        except ValueError as error:
            assert "a.json" in str(error)
        else:  # the checksum has lost its name
            assert {key: found[key] for key in value} == value


@pytest.mark.parametrize("content", ["", "null", "[1]", '{"a": 1', "[" * 100_000, "\xff"])
def test_a_damaged_mapping_names_its_file(tmp_path, content):
    (tmp_path / "a.json").write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=r"Expected .*JSON .*in .*a\.json"):
        read_verified(tmp_path / "a.json")


def test_a_mapping_without_a_checksum_is_read(tmp_path):
    (tmp_path / "a.json").write_text('{"a": 1}')
    assert read_verified(tmp_path / "a.json") == {"a": 1}
