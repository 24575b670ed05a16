"""Formats are recognised by their content, and what is none of them is a clear error."""

import zipfile

import numpy as np
import pytest

import gradflow
from gradflow.interop import loading
from gradflow.interop.formats import FORMATS, format_of

SIGNATURES = {
    "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(8),
    "safetensors": (20).to_bytes(8, "little") + b'{"a":1}' + bytes(20),
    "torch": b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.",
}
MEMBERS = {
    "keras": ["config.json", "model.weights.h5"],
    "torch": ["archive/data.pkl", "archive/data/0"],
    "torchscript": ["archive/data.pkl", "archive/constants.pkl", "archive/code/__torch__.py"],
    "npz": ["a.npy", "b/c.npy"],
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_files_are_recognised_by_their_first_bytes(tmp_path, name):
    (tmp_path / "model").write_bytes(SIGNATURES[name])
    assert format_of(tmp_path / "model") == name


@pytest.mark.parametrize("name", MEMBERS)
def test_archives_are_recognised_by_their_members(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "model", "w") as archive:
        for member in MEMBERS[name]:
            archive.writestr(member, b"x")
    assert format_of(tmp_path / "model") == name


@pytest.mark.parametrize(
    ("suffix", "name"),
    [(".onnx", "onnx"), (".msgpack", "msgpack"), (".pt", "torch"), (".pth", "torch")],
)
def test_files_without_a_signature_are_recognised_by_their_suffix(tmp_path, suffix, name):
    (tmp_path / f"model{suffix}").write_bytes(b"abc")
    assert format_of(tmp_path / f"model{suffix}") == name


def test_a_folder_of_orbax_is_recognised(tmp_path):
    with pytest.raises(ValueError, match="a folder without the metadata of an Orbax checkpoint"):
        gradflow.load(tmp_path)
    (tmp_path / "_METADATA").write_text("{}")
    assert format_of(tmp_path) == "orbax"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.bin", b"", "got an empty file"),
        ("a.bin", b"hello, this is a text", "a file of another kind"),
        ("a.bin", b"[1234567{is a text}", "a file of another kind"),
        ("a.json", b"{}", "a configuration.*name it with config"),
        ("a.pkl", b"\x80\x04]\x94.", "a pickle, which can execute code and is never loaded"),
        ("a.bin", b"PK\3\4 damaged", "undamaged archive"),
        ("a.bin", bytes(range(128, 192)), "."),
    ],
)
def test_other_files_are_errors(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        gradflow.load(tmp_path / name)


def test_other_archives_are_errors(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme.txt", b"x")
    with pytest.raises(ValueError, match="an archive of readme.txt"):
        gradflow.load(tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "b.zip", "w"):
        pass
    with pytest.raises(ValueError, match="an archive of nothing"):
        gradflow.load(tmp_path / "b.zip")


def test_a_zip_bomb_is_an_error(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("weight_hh_l0.npy", bytes(2**25))
    with pytest.raises(ValueError, match="zip bomb"):
        gradflow.load(tmp_path / "a.npz")


def test_no_file_and_no_model_are_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="Expected a model at"):
        gradflow.load(tmp_path / "none.pt")
    with pytest.raises(ValueError, match="Expected a path, or a model of PyTorch.*got int"):
        gradflow.load(3)


def test_options_are_checked(tmp_path):
    np.savez(tmp_path / "a.npz", weight_hh_l0=np.ones((4, 1)), weight_ih_l0=np.ones((4, 1)))
    with pytest.raises(ValueError, match="convention.*keras"):
        gradflow.load(tmp_path / "a.npz", convention="kerass")
    with pytest.raises(ValueError, match="activation.*relu"):
        gradflow.load(tmp_path / "a.npz", activation="rellu")


def test_a_home_directory_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    np.savez(tmp_path / "a.npz", weight_hh_l0=np.ones((4, 1)), weight_ih_l0=np.ones((4, 1)))
    assert gradflow.load("~/a.npz", verify=False).path == str(tmp_path / "a.npz")


def test_a_missing_package_is_named_with_its_installation():
    error = loading.missing("ONNX graph", ModuleNotFoundError("no", name="onnx.helper"), "onnx")
    assert "pip install 'gradflow-rnn[onnx]'" in str(error) and error.name == "onnx.helper"
    plain = loading.missing("Keras file", ModuleNotFoundError("no", name="h5py"), "")
    assert "pip install 'h5py'" in str(plain)


def test_a_net_shows_its_layers(tmp_path):
    arrays = {"a.weight_hh_l0": np.ones((4, 1)), "a.weight_ih_l0": np.ones((4, 2))}
    arrays |= {"b.weight_hh_l0": np.ones((1, 1)), "b.weight_ih_l0": np.ones((1, 2))}
    np.savez(tmp_path / "a.npz", **arrays)
    text = repr(gradflow.load(tmp_path / "a.npz", verify=False))
    assert "a.l0: lstm, 2 -> 1, forward, not verified" in text
    assert "b.l0: not imported: Expected the activation" in text
    assert set(FORMATS) >= {"safetensors", "npz", "torch", "torchscript"}
