"""Parameters in files: load returns what save wrote, and errors for files that do not match."""

import json

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
