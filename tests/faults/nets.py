"""Attacks on the readers of foreign networks, as those of `loaders`."""

import functools
import importlib.util
import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import load, save

import gradflow
from gradflow.interop import Net

HAS_TORCH = importlib.util.find_spec("torch") is not None
Outcome = Callable[[Callable[[], Net], Callable[[Net], None]], str]


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {"weight_ih": (8, 3), "weight_hh": (8, 2), "bias_ih": (8,), "bias_hh": (8,)}
    return {f"a.{k}_l0": rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}


def in_npz(**files: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **files)
    return buffer.getvalue()


@functools.cache
def in_torch(*, zipped: bool) -> bytes:
    import torch

    buffer = io.BytesIO()
    state = {name: torch.from_numpy(array) for name, array in arrays().items()}
    torch.save({"state_dict": state, "epoch": 3}, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


@functools.cache
def in_script() -> bytes:
    """An archive as TorchScript writes it: the pickle of a state_dict beside some code."""
    return repacked(in_torch(zipped=True), {"archive/constants.pkl": b"", "archive/code/a.py": b""})


def repacked(data: bytes, files: Mapping[str, bytes]) -> bytes:
    """The archive with other members, whose checksums are right."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        members = {name: old.read(name) for name in old.namelist()} | files
        for name, content in members.items():
            new.writestr(name, content)
    return buffer.getvalue()


def member(data: bytes, name: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read(name)


def attack_net(
    outcome: Outcome,
    data: bytes,
    folder: Path,
    *,
    name: str,
    stored: Callable[[bytes], Mapping[str, np.ndarray]] | None = None,
    pack: Callable[[bytes], bytes] = bytes,
) -> str:
    """Loads the bytes as a file of that name, after they were packed into an archive.

    Args:
      outcome: Reads a file and checks what was read or the error.
      data: The bytes.
      folder: An empty folder.
      name: Name of the file.
      stored: An independent reading of the file.
      pack: What is done to the bytes first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = pack(data)
    (folder / name).write_bytes(content)

    def check(net: Net) -> None:
        largest = max(leaf.nbytes for one in net.layers for leaf in jax.tree.leaves(one.params))
        assert largest <= 100 * len(content)
        for layer in net.layers if stored is not None else ():
            assert layer.spec == "lstm", layer
            found = np.concatenate([layer.params[gate]["W_h"] for gate in "ifgo"])
            every = stored(content).values()
            assert any(np.array_equal(found, array, equal_nan=True) for array in every)

    return outcome(lambda: gradflow.load(folder / name, verify=False), check)


def read_npz(data: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files if "weight" in name}


def attacks(outcome: Outcome) -> dict[str, tuple[Callable[[bytes, Path], str], bytes]]:
    """The attack and the bytes of a good file, by the reader's name."""

    def attack(name: str, **options) -> Callable[[bytes, Path], str]:
        return functools.partial(_attack, outcome, name, options)

    npz = in_npz(**arrays())
    header = "a.weight_hh_l0.npy"
    found = {
        "net safetensors": (attack("a.safetensors", stored=load), save(arrays())),
        "net npz": (attack("a.npz", stored=read_npz), npz),
        "net npy": (
            attack("a.npz", pack=lambda data: repacked(npz, {header: data})),
            member(npz, header),
        ),
    }
    if HAS_TORCH:
        whole, script = in_torch(zipped=True), in_script()
        pickled = member(whole, "archive/data.pkl")
        at = "archive/data.pkl"
        found |= {
            "net pt": (attack("a.pt", stored=lambda _: arrays()), whole),
            "net older pt": (attack("a.pt"), in_torch(zipped=False)),
            "net pt pickle": (attack("a.pt", pack=lambda d: repacked(whole, {at: d})), pickled),
            "net jit": (attack("a.pt", stored=lambda _: arrays()), script),
            "net jit pickle": (attack("a.pt", pack=lambda d: repacked(script, {at: d})), pickled),
        }
    return found


def _attack(outcome: Outcome, name: str, options: dict, data: bytes, folder: Path) -> str:
    return attack_net(outcome, data, folder, name=name, **options)
