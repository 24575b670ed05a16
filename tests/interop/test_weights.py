"""Parameters in files: load returns what save wrote, and errors for files that do not match."""

import json
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from gradflow.cells import resolve
from gradflow.interop import Description, read_description, read_params, save_params

SPEC = "stack(cells='lstm(forget_bias=2),gru')"


def shapes_of(spec, input_size=2, hidden_size=3):
    return jax.eval_shape(resolve(spec)(input_size, hidden_size).init, jax.random.key(0))


def saved(path, spec=SPEC, input_size=2, hidden_size=3):
    """Writes parameters of the cell, sampled by NumPy to compile nothing."""
    rng, shapes = np.random.default_rng(0), shapes_of(spec, input_size, hidden_size)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), shapes)
    save_params(path, params, cell=spec, input_size=input_size, hidden_size=hidden_size)
    return params


def test_load_returns_what_save_wrote(tmp_path):
    path = tmp_path / "deep" / "stack.safetensors"
    params = saved(path)
    assert read_description(path) == Description(SPEC, 2, 3)
    read = read_params(path, shapes_of(SPEC))
    assert jax.tree.structure(read) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, read, params)
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # no draft is left
    plain = load_file(path)
    np.testing.assert_array_equal(plain["1.z.W_h"], params[1]["z"]["W_h"])
    np.testing.assert_array_equal(plain["0.f.b"], params[0]["f"]["b"])


def test_equal_parameters_give_equal_bytes_and_transposed_arrays_keep_their_order(tmp_path):
    params = saved(tmp_path / "one", "rnn")
    params = {name: np.asfortranarray(leaf) for name, leaf in params.items()}
    save_params(tmp_path / "two", params, cell="rnn", input_size=2, hidden_size=3)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_float_type_is_that_of_the_requested_parameters(tmp_path):
    params = saved(tmp_path / "rnn", "rnn")
    like = jax.tree.map(lambda leaf: leaf.astype(np.float32), params)
    read = read_params(tmp_path / "rnn", like)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(read)} == {"float32"}
    np.testing.assert_array_equal(read["W_h"], like["W_h"])


def test_parameters_of_a_single_array_have_a_name(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import jax.numpy as jnp\n"
        "from gradflow import Cell\n"
        "def one(n, m):\n"
        "    step = lambda p, h, x: (jnp.tanh(p * h + x.sum()),) * 2\n"
        "    return Cell(lambda key: jnp.ones(m), step, lambda: jnp.zeros(m))\n"
    )
    spec = f"{tmp_path}/mine.py:one"
    saved(tmp_path / "one", spec)
    assert list(load_file(tmp_path / "one")) == ["params"]
    read = read_params(tmp_path / "one", jnp.zeros(3))
    np.testing.assert_array_equal(read, load_file(tmp_path / "one")["params"])


def test_file_that_does_not_match_the_cell_raises(tmp_path):
    path = tmp_path / "lstm"
    params = saved(path, "lstm")
    with pytest.raises(ValueError, match=r"\(5, 5\) for f.W_h, got \(3, 3\)"):
        read_params(path, shapes_of("lstm", hidden_size=5))
    with pytest.raises(ValueError, match=r"\(3, 3\) for r.W_h, got none"):
        read_params(path, shapes_of("gru"))
    with pytest.raises(ValueError, match=r"none for o.b, got \(3,\)"):
        read_params(path, {name: params[name] for name in "ifg"})
    with pytest.raises(ValueError, match=r"parameters of 'lstm': \(3, 4\) for f.W_x"):
        save_params(path, params, cell="lstm", input_size=4, hidden_size=3)
    with pytest.raises(ValueError, match="Unknown cell 'lsmt'"):
        save_params(path, params, cell="lsmt", input_size=2, hidden_size=3)
    with pytest.raises(ValueError, match="Expected a unique name for each leaf .* a.b twice"):
        read_params(path, {"a": {"b": jnp.zeros(1)}, "a.b": jnp.zeros(1)})


def test_file_of_another_format_raises(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="Expected a file with parameters of a cell at '.*none'"
    ):
        read_description(tmp_path / "none")
    path = tmp_path / "file"
    path.write_text("not arrays at all")
    with pytest.raises(ValueError, match="Expected a safetensors file"):
        read_description(path)
    saved(path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match="Expected a safetensors file"):
        read_params(path, shapes_of(SPEC))
    damaged = {"cell": "rnn", "input_size": "two", "hidden_size": 3}
    for metadata in (None, {"gradflow": "{"}, {"gradflow": json.dumps(damaged)}):
        save_file({"W_h": np.zeros((3, 3))}, path, metadata)
        with pytest.raises(ValueError, match="Expected the cell and its sizes in the metadata"):
            read_description(path)


EVIL = """
from pathlib import Path
from gradflow.cells import rnn
Path(__file__).with_name("ran").touch()
def mine(n, m):
    return rnn(n, m)
"""


@pytest.mark.parametrize(
    "form", ["{}/evil.py:mine", "evil:mine", "stack(cells='rnn,{}/evil.py:mine')"]
)
def test_code_in_a_description_is_executed_only_if_it_is_trusted(tmp_path, monkeypatch, form):
    (tmp_path / "evil.py").write_text(EVIL)
    monkeypatch.syspath_prepend(tmp_path)
    path, spec = tmp_path / "p", form.format(tmp_path)
    description = {"cell": spec, "input_size": 2, "hidden_size": 3}
    save_file({"W_h": np.zeros((3, 3))}, path, {"gradflow": json.dumps(description)})
    for trusted in ([], ["rnn"], [f"{spec} "]):
        with pytest.raises(
            ValueError, match="Cannot use the cell of .*/p'. Expected only cells of"
        ):
            read_description(path, trusted=trusted)
    assert not (tmp_path / "ran").exists()
    assert read_description(path, trusted=["rnn", spec]) == Description(spec, 2, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda W: np.where(W > 0, np.nan, W), "finite numbers for b in .*, got NaN or an inf"),
        (lambda W: W + np.inf, "Expected finite numbers for b"),
        (lambda W: W * 1e300, "Expected finite numbers for b in .* in float32. Use parameters"),
        (lambda W: W > 0, "Expected numbers of the kind float32 for b in .*, got the type BOOL"),
        (lambda W: W.astype(np.complex64), "got the type C64. Convert the file to float32"),
        (lambda W: W.astype(int), "got the type I64"),
    ],
)
def test_weights_that_are_not_finite_or_not_real_raise(tmp_path, change, message):
    arrays = {name: np.zeros((3, 3)) for name in ("W_x", "W_h")} | {"b": np.arange(1.0, 4)}
    like = {name: jax.ShapeDtypeStruct(array.shape, np.float32) for name, array in arrays.items()}
    save_file(arrays | {"b": change(arrays["b"])}, tmp_path / "p")
    with pytest.raises(ValueError, match=message):
        read_params(tmp_path / "p", like)


@pytest.mark.parametrize(("dtype", "size"), [("BF16", 2), ("F8_E4M3", 1), ("F8_E5M2", 1)])
def test_types_that_numpy_has_not_raise(tmp_path, dtype, size):
    header = json.dumps({"b": {"dtype": dtype, "shape": [1], "data_offsets": [0, size]}}).encode()
    (tmp_path / "p").write_bytes(struct.pack("<Q", len(header)) + header + bytes(size))
    with pytest.raises(ValueError, match=f"for b in .*, got the type {dtype}. Convert the file"):
        read_params(tmp_path / "p", {"b": jnp.zeros(1)})


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("[" * 100_000, "Expected the cell and its sizes in the metadata"),
        ({"cell": "rnn", "input_size": True, "hidden_size": 3}, "Expected the cell and its sizes"),
        ({"cell": "rnn", "input_size": -1, "hidden_size": 3}, "Expected the cell and its sizes"),
        ({"cell": 3, "input_size": 2, "hidden_size": 3}, "Expected the cell and its sizes"),
        ({"cell": "rnm", "input_size": 2, "hidden_size": 3}, "the cell of .*Unknown cell 'rnm'"),
        ({"cell": "rnn", "input_size": 2, "hidden_size": 10**8}, "as many numbers in .*, got 9"),
    ],
)
def test_a_description_that_cannot_be_true_raises(tmp_path, description, message):
    text = description if isinstance(description, str) else json.dumps(description)
    save_file({"W_h": np.zeros((3, 3))}, tmp_path / "p", {"gradflow": text})
    with pytest.raises(ValueError, match=message) as error:
        read_description(tmp_path / "p")
    assert len(str(error.value)) < 1000


def test_many_wrong_names_are_cut_in_the_error(tmp_path):
    save_file({f"a{i}": np.zeros(1) for i in range(1000)}, tmp_path / "p")
    with pytest.raises(ValueError, match="; and more. Pass the cell") as error:
        read_params(tmp_path / "p", {"b": jnp.zeros(1)})
    assert len(str(error.value)) < 1000


def test_a_flipped_bit_is_never_another_parameter(tmp_path):
    path = tmp_path / "rnn"
    params = saved(path, "rnn")
    whole, refused = path.read_bytes(), 0
    for bit in range(0, 8 * len(whole), 3):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        try:
            assert read_description(path) == Description("rnn", 2, 3)
            read = read_params(path, shapes_of("rnn"))
            jax.tree.map(np.testing.assert_array_equal, read, params)
        except ValueError:
            refused += 1
    assert refused > 0.9 * len(range(0, 8 * len(whole), 3))
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match="Expected the parameters that were written to .* digest"):
        read_params(path, shapes_of("rnn"))


def test_a_file_of_others_has_no_digest_and_is_read(tmp_path):
    about = {"cell": "rnn", "input_size": 2, "hidden_size": 3}
    arrays = {name: np.ones(leaf.shape) for name, leaf in shapes_of("rnn").items()}
    for metadata in (None, {"gradflow": json.dumps(about)}, {"by": "others"}):
        save_file(arrays, tmp_path / "rnn", metadata)
        read = read_params(tmp_path / "rnn", shapes_of("rnn"))
        jax.tree.map(np.testing.assert_array_equal, read, arrays)
