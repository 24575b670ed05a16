"""Attacks on the readers of files: any bytes give the right value or an error of one line.

Each attack writes the bytes to a file, reads it, and compares what it read with an independent
reading of the same bytes.
"""

import csv
import functools
import gzip
import io
import json
import re
import struct
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jaxtyping
import numpy as np
from nets import attacks
from safetensors.numpy import load, save

from gradflow.cell import Cell, param_shapes
from gradflow.cells import lstm, resolve
from gradflow.checks import check_sizes
from gradflow.data.ag_news import read_ag_news
from gradflow.data.characters import read_characters
from gradflow.data.idx import read_idx, read_mnist
from gradflow.data.imdb import read_imdb
from gradflow.data.series import read_series
from gradflow.data.trec import CLASSES, read_trec
from gradflow.interop import read_description, read_params
from gradflow.tasks import make_inputs


class Attack(NamedTuple):
    """An attack on one reader.

    Attributes:
      run: (bytes of the file, empty folder) -> "survived" or "refused"; an AssertionError if the
        reader gave a wrong value, or failed in another way than by an error of one line.
      example: The bytes of a good file, for mutations.
    """

    run: Callable[[bytes, Path], str]
    example: bytes


def outcome(read: Callable[[], Any], check: Callable[[Any], None]) -> str:
    """Reads a file, and checks what was read or the error."""
    try:
        found = read()
    except (ValueError, OSError) as error:
        assert len(str(error).splitlines()) == 1, f"not one line: {str(error)[:500]!r}"
        assert len(str(error)) < 3000, f"a message of {len(str(error))} characters"
        return "refused"
    except Exception as error:
        raise AssertionError(f"{type(error).__name__}: {str(error)[:500]}") from error
    check(found)
    return "survived"


def written(folder: Path, name: str, data: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    return folder / name


def same(found: Any, expected: Any) -> None:
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


def inputs_of(spec: str, num_sequences: int, num_steps: int) -> np.ndarray:
    sizes = {"num_sequences": num_sequences, "num_steps": num_steps, "input_size": 1}
    return np.asarray(make_inputs(spec, jax.random.key(0), **sizes))


def attack_npy(data: bytes, folder: Path) -> str:
    path = written(folder, "a.npy", data)

    def check(found: np.ndarray) -> None:
        array = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
        same(found, array.reshape(-1, *array.shape[-2:])[:1, :2].astype(found.dtype))

    return outcome(lambda: inputs_of(f"npy:{path}", 1, 2), check)


def attack_series(data: bytes, folder: Path) -> str:
    path = written(folder, "s.csv", data)

    def check(found: Any) -> None:
        text = data.decode("utf-8-sig")
        assert len(found.values) == len(found.times) > 0
        if '"' not in text:  # then a field is what is between two separators
            lines = [line for line in re.split("\r\n|\r|\n", text) if line]
            delimiter = max(",;\t", key=lines[0].count)
            header, *rows = ([f.strip() for f in line.split(delimiter)] for line in lines)
            assert {len(row) for row in rows} == {len(header)}
            assert header.count("x") == header.count("t") == 1
            column, when = ([row[header.index(name)] for row in rows] for name in "xt")
            assert not re.search("[_a-df-z]", "".join(column), re.IGNORECASE), column
            same(found.values, [float(field) for field in column])
            assert all(re.match("[0-9]{4}(-|$)", field) for field in when), when
            same(found.times, np.array(when, "datetime64[s]"))
        assert np.isfinite(found.values).all() and (np.diff(found.times).astype(int) > 0).all()

    return outcome(lambda: read_series(path, "x", times=["t"]), check)


def plain_text(data: bytes) -> str:
    return re.sub("\r\n|\r", "\n", data.decode("utf-8-sig"))


def attack_text(data: bytes, folder: Path) -> str:
    path = written(folder, "t.txt", data)

    def check(found: np.ndarray) -> None:
        text = plain_text(data)
        same(found.sum(-1), 1)
        for codes in found.argmax(-1):
            assert "".join(sorted(set(text))[code] for code in codes) in text

    return outcome(lambda: inputs_of(f"text:{path}", 2, 3), check)


def attack_characters(data: bytes, folder: Path) -> str:
    path = written(folder, "t.txt", data)

    def check(found: Any) -> None:
        assert "".join(found.alphabet[code] for code in found.codes) == plain_text(data)
        assert list(found.alphabet) == sorted(set(found.alphabet))

    return outcome(lambda: read_characters(path), check)


def checked_idx(data: bytes, num_axes: int) -> Callable[[np.ndarray], None]:
    def check(found: np.ndarray) -> None:
        types = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
        shape = struct.unpack(f">{num_axes}I", data[4 : 4 + 4 * num_axes])
        same(found, np.frombuffer(data[4 + 4 * num_axes :], types[data[2]]).reshape(shape))

    return check


def attack_idx(data: bytes, folder: Path) -> str:
    path = written(folder, "images", data)
    return outcome(lambda: read_idx(path, num_axes=3), checked_idx(data, 3))


def attack_packed_idx(data: bytes, folder: Path) -> str:
    path = written(folder, "images.gz", data)
    return outcome(
        lambda: read_idx(path, num_axes=3),
        lambda found: checked_idx(gzip.decompress(data), 3)(found),
    )


def attack_labels(data: bytes, folder: Path) -> str:
    written(folder, "train-images-idx3-ubyte", IMAGES)
    written(folder, "train-labels-idx1-ubyte", data)

    def check(found: Any) -> None:
        same(found.labels, list(data[8:]))
        assert len(found.labels) == len(found.pixels) and max(data[8:]) <= 9

    return outcome(lambda: read_mnist(folder, "train"), check)


def attack_trec(data: bytes, folder: Path) -> str:
    written(folder, "TREC_10.label", data)

    def check(found: Any) -> None:
        lines = data.decode("latin-1").replace("\r\n", "\n").rstrip("\n").split("\n")
        expected = [(line.split(":")[0], line[line.index(" ") + 1 :]) for line in lines]
        labels = [CLASSES[label] for label in found.labels]
        assert list(zip(labels, found.texts, strict=True)) == expected

    return outcome(lambda: read_trec(folder, "test"), check)


def attack_ag_news(data: bytes, folder: Path) -> str:
    written(folder, "test.csv", data)

    def check(found: Any) -> None:
        rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")))
        rows = rows[rows[0] == ["label", "content"] :]
        same(found.labels + 1, [int(row[0]) for row in rows])
        assert list(found.texts) == [" ".join(row[1:]).replace("\\", " ") for row in rows]

    return outcome(lambda: read_ag_news(folder, "test"), check)


def attack_imdb(data: bytes, folder: Path) -> str:
    written(folder, "aclImdb_v1.tar.gz", data)

    def check(found: Any) -> None:
        reviews = []
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(data))) as archive:
            for member in archive:
                if place := re.search(r"(^|/)train/(neg|pos)/(\d+)_\d+\.txt$", member.name):
                    if member.isreg():
                        text = archive.extractfile(member).read().decode()  # pyright: ignore
                        reviews.append((place[2], int(place[3]), text.replace("<br />", " ")))
        assert list(found.texts) == [text for _, _, text in sorted(reviews)]

    return outcome(lambda: read_imdb(folder, "train"), check)


@functools.cache
def lstm_shapes() -> Any:
    return param_shapes(lstm(2, 3))


def attack_params(data: bytes, folder: Path) -> str:
    path = written(folder, "p.safetensors", data)

    def check(found: Any) -> None:
        stored = load(data)
        assert set(stored) == {f"{gate}.{name}" for gate in "ifgo" for name in ("W_x", "W_h", "b")}
        for gate, leaves in found.items():
            for name, leaf in leaves.items():
                array = stored[f"{gate}.{name}"]
                assert array.dtype.kind == "f" and np.isfinite(array).all()
                same(leaf, array.astype(leaf.dtype))

    return outcome(lambda: read_params(path, lstm_shapes()), check)


def attack_description(data: bytes, folder: Path) -> str:
    path = written(folder, "p.safetensors", data)

    def check(found: Any) -> None:
        header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
        assert found._asdict() == json.loads(header["__metadata__"]["gradflow"])
        check_sizes(found.input_size, found.hidden_size)
        assert ".py" not in found.cell and ":" not in found.cell

    return outcome(lambda: read_description(path), check)


def attack_cell_file(data: bytes, folder: Path) -> str:
    path = written(folder, "mine.py", data)
    before = sys.path.copy(), set(sys.modules)

    def check(factory: Any) -> None:
        assert callable(factory)

    found = outcome(lambda: resolve(f"{path}:mine"), check)
    assert before == (sys.path, set(sys.modules)), "the file has left traces"
    return found


def attack_spec(data: bytes, folder: Path) -> str:
    del folder  # a spec is no file, but it stands in the metadata of files
    spec = data.decode("utf-8", errors="replace")

    def read() -> Cell:
        jaxtyping.config.update("jaxtyping_disable", True)  # a user has no checks but the cell's
        try:
            return resolve(spec, allow_code=False)(2, 4)
        except TypeError as error:  # for an option of another type, which a command line reports
            raise ValueError(error) from None
        finally:
            jaxtyping.config.update("jaxtyping_disable", False)

    def check(cell: Cell) -> None:
        assert isinstance(cell, Cell) and ":" not in spec
        assert all(leaf.size < 1e9 for leaf in jax.tree.leaves(param_shapes(cell)))

    return outcome(read, check)


def saved(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def archived(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"aclImdb/{name}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


def parameters() -> bytes:
    rng, shapes = np.random.default_rng(0), lstm_shapes()
    description = {"cell": "lstm(forget_bias=2)", "input_size": 2, "hidden_size": 3}
    arrays = {
        f"{gate}.{name}": rng.normal(size=leaf.shape)
        for gate, leaves in shapes.items()
        for name, leaf in leaves.items()
    }
    return save(arrays, {"gradflow": json.dumps(description)})


IMAGES = bytes([0, 0, 8, 3]) + struct.pack(">III", 2, 3, 4) + bytes(range(24))
LABELS = bytes([0, 0, 8, 1]) + struct.pack(">I", 2) + bytes([7, 0])
SERIES = "t,x,y\n" + "".join(f"2014-01-{day:02},{day / 4 - 3},abc\n" for day in range(1, 9))
NEWS = '"1","T, one","D\\one"\n"2","A ""b""","c"\n"3","x","y"\n"4","z","w"\n'
REVIEWS = {"train/pos/0_9.txt": "Good.<br />Very.", "train/neg/0_1.txt": "Bad.", "README": "all"}
CELL = """
import math
from gradflow.cells import rnn

GAIN = [0.5, math.sqrt(2)]

def mine(input_size, hidden_size, *, gain=GAIN[0]):
    return rnn(input_size, hidden_size, recurrent_init=f"identity(gain={gain})")
"""

LOADERS: dict[str, Attack] = {
    "npy": Attack(attack_npy, saved(np.random.default_rng(0).normal(size=(2, 5, 3)))),
    "series": Attack(attack_series, SERIES.encode()),
    "text": Attack(attack_text, "Ein Bär, zwei Bären:\r\nder Rest ist 鏡.".encode()),
    "characters": Attack(attack_characters, "\ufeffEin Bär, zwei Bären:\r\n鏡.".encode()),
    "idx": Attack(attack_idx, IMAGES),
    "idx.gz": Attack(attack_packed_idx, gzip.compress(IMAGES, mtime=0)),
    "labels": Attack(attack_labels, LABELS),
    "trec": Attack(attack_trec, "".join(f"{c}:fine Was {c} ?\n" for c in CLASSES).encode()),
    "ag_news": Attack(attack_ag_news, NEWS.encode()),
    "imdb": Attack(attack_imdb, archived(REVIEWS)),
    "params": Attack(attack_params, parameters()),
    "description": Attack(attack_description, parameters()),
    "cell file": Attack(attack_cell_file, CELL.encode()),
    "spec": Attack(attack_spec, b"stack(cells='lstm(forget_bias=2),gru', skip='residual')"),
} | {name: Attack(run, example) for name, (run, example) in attacks(outcome).items()}
"""The attack on each reader, by the reader's name."""
