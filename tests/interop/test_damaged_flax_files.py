"""Files of Flax that are damaged or hostile: clear errors."""

import json
import shutil

import jax
import jax.numpy as jnp
import msgpack
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import linen, serialization

import gradflow
from gradflow.interop.flax import files as flax_files


@pytest.fixture(scope="module")
def variables():
    rnn = linen.RNN(linen.GRUCell(3, param_dtype=float))
    return rnn.init(jax.random.key(0), jnp.ones((1, 2, 2)))


def load(path):
    return gradflow.load(path, verify=False)


def test_damaged_msgpack_is_refused(tmp_path, variables):
    path = tmp_path / "net.msgpack"
    whole = serialization.to_bytes(variables)
    deep = b"\x81\xa1a" * 900 + b"\xc0"
    for content in (whole[: len(whole) // 2], b"\xc1" * 50, deep * 3):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="it is damaged|nested too deeply"):
            load(path)
    path.write_bytes(msgpack.packb([1, 2]))
    with pytest.raises(ValueError, match="nested dictionaries of parameters in .*got list"):
        load(path)
    shape = msgpack.packb([[2**40], "float32", b"1234"])
    path.write_bytes(msgpack.packb({"params": msgpack.ExtType(1, shape)}))
    with pytest.raises(ValueError, match="it is damaged"):
        load(path)


def test_no_flipped_byte_of_msgpack_raises_anything_else(tmp_path, variables):
    path = tmp_path / "net.msgpack"
    whole = serialization.to_bytes(variables)
    random = np.random.default_rng(1)
    refused = 0
    for place in random.integers(0, len(whole), 200):
        content = bytearray(whole)
        content[place] ^= int(random.integers(1, 256))
        path.write_bytes(content)
        try:
            load(path)
        except ValueError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 20


def test_an_incomplete_or_absurd_checkpoint_is_refused(tmp_path, variables, monkeypatch):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "net", variables)
    damaged = shutil.copytree(tmp_path / "net", tmp_path / "damaged")
    (damaged / "_METADATA").write_text("{")
    with pytest.raises(ValueError, match="it is damaged"):
        load(damaged)
    monkeypatch.setattr(flax_files, "FACTOR", 0)
    monkeypatch.setattr(flax_files, "_SPARE", 8)
    with pytest.raises(ValueError, match="arrays of the size of the files"):
        load(tmp_path / "net")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text(json.dumps({}))
    with pytest.raises(ValueError, match="without the metadata of an Orbax checkpoint"):
        load(tmp_path / "other")
