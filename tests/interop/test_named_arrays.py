"""Named arrays: kinds, sizes and layouts follow from names and shapes, or are asked for."""

import importlib.util
import io
import json
import sys
import zipfile

import jax
import ml_dtypes
import numpy as np
import pytest
from foreign import keras_gru, keras_lstm
from safetensors.numpy import save_file

import gradflow
from gradflow.cells import resolve
from gradflow.interop import gates, save_params
from gradflow.interop.arrays.names import find_groups

INPUT, HIDDEN, STEPS = 3, 4, 7
HAS_TORCH = importlib.util.find_spec("torch") is not None


def array(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def torch_arrays(gates=4, prefix="", end="_l0", bias=True, input_size=INPUT, projection=None):
    rows, size = gates * HIDDEN, projection or HIDDEN
    found = {"weight_ih": array(rows, input_size), "weight_hh": array(rows, size, seed=1)}
    if bias:
        found |= {"bias_ih": array(rows, seed=2), "bias_hh": array(rows, seed=3)}
    if projection:
        found["weight_hr"] = array(projection, HIDDEN, seed=4)
    return {f"{prefix}{name}{end}": value for name, value in found.items()}


def keras_arrays(gates=4, prefix="lstm/", bias=(), end=""):
    columns = gates * HIDDEN
    found = {"kernel": array(INPUT, columns), "recurrent_kernel": array(HIDDEN, columns, seed=1)}
    if bias is not None:
        found["bias"] = array(*(bias or (columns,)), seed=2)
    return {f"{prefix}{name}{end}": value for name, value in found.items()}


def saved(path, arrays):
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("separator", ["/", "."])
@pytest.mark.parametrize("end", ["", ":0"])
def test_keras_names_are_read(tmp_path, separator, end):
    arrays = keras_arrays(prefix=f"model{separator}lstm_1{separator}", end=end)
    net = gradflow.load(saved(tmp_path / "a.npz", arrays))
    layer = net["model.lstm_1"]
    assert net.framework == "Keras" and layer.spec == "lstm" and layer.error is None
    assert "sigmoid are assumed; not verified" in layer.note
    assert layer.convention == "Keras, blocks of columns i f c o, one bias"
    x = array(1, STEPS, INPUT, seed=5)
    expected = keras_lstm(x[0], *arrays.values())
    np.testing.assert_allclose(layer.run(x)[0], expected, atol=1e-12)


@pytest.mark.parametrize("reset_after", [True, False])
def test_both_grus_of_keras_are_told_apart_by_their_bias(tmp_path, reset_after):
    arrays = keras_arrays(3, "gru/", (2, 3 * HIDDEN) if reset_after else (3 * HIDDEN,))
    layer = gradflow.load(saved(tmp_path / "a.npz", arrays))["gru"]
    assert layer.spec == ("gru" if reset_after else "gru_reset_before")
    assert f"reset_after={reset_after}" in layer.convention
    x = array(1, STEPS, INPUT, seed=5)
    kernel, recurrent, bias = arrays.values()
    biases = bias if reset_after else (bias, 0 * bias)
    expected = keras_gru(x[0], kernel, recurrent, *biases, reset_after=reset_after)
    np.testing.assert_allclose(layer.run(x)[0], expected, atol=1e-12)


@pytest.mark.parametrize("gates", [3, 4])
def test_cudnn_layers_have_their_gates_transposed(tmp_path, gates):
    arrays = keras_arrays(gates, "rnn/", (2 * gates * HIDDEN,))
    layer = gradflow.load(saved(tmp_path / "a.npz", arrays))["rnn"]
    assert "CuDNN layer" in layer.convention and "two biases" in layer.convention

    def turned(kernel):  # as Keras 2 converts them: for each gate, k.T in Fortran's order
        parts = np.split(kernel, gates, axis=1)
        return np.hstack([part.T.reshape(part.shape, order="F") for part in parts])

    kernel, recurrent = (turned(arrays[f"rnn/{name}"]) for name in ("kernel", "recurrent_kernel"))
    bias = arrays["rnn/bias"].reshape(2, -1)
    x = array(1, STEPS, INPUT, seed=5)
    if gates == 4:
        expected = keras_lstm(x[0], kernel, recurrent, bias.sum(0))
    else:
        expected = keras_gru(x[0], kernel, recurrent, *bias)
    np.testing.assert_allclose(layer.run(x)[0], expected, atol=1e-12)


def test_a_keras_gru_without_bias_asks_for_the_convention(tmp_path):
    path = saved(tmp_path / "a.npz", keras_arrays(3, "gru/", bias=None))
    with pytest.raises(ValueError, match="whether a Keras GRU has reset_after.*convention keras"):
        gradflow.load(path)
    assert gradflow.load(path, convention="keras")["gru"].spec == "gru"


def test_the_backward_layer_of_keras_is_a_reverse_one(tmp_path):
    arrays = keras_arrays(prefix="bi/forward_lstm/") | keras_arrays(prefix="bi/backward_lstm/")
    net = gradflow.load(saved(tmp_path / "a.npz", arrays))
    assert [one.direction for one in net.layers] == ["forward", "reverse"]


def test_the_kind_follows_from_the_shapes(tmp_path):
    arrays = {
        **torch_arrays(1, "a."),
        **torch_arrays(3, "b."),
        **torch_arrays(4, "c."),
        **torch_arrays(4, "d.", projection=2),
        **torch_arrays(4, "e.", "", bias=False),
        "conv.weight": array(3, 3),
    }
    net = gradflow.load(saved(tmp_path / "a.npz", arrays), activation="relu")
    specs = {one.name: one.spec for one in net.layers}
    assert specs == {
        "a.l0": "rnn(activation='relu')",
        "b.l0": "gru",
        "c.l0": "lstm",
        "d.l0": "lstm(projection_size=2)",
        "e": "lstm",
    }
    assert net["e"].convention == "PyTorch, blocks of rows i f g o, no bias"
    if HAS_TORCH:
        assert all(one.error < 1e-12 for one in net.layers)


def test_an_open_activation_is_asked_for_and_others_are_loaded(tmp_path):
    path = saved(tmp_path / "a.npz", torch_arrays(1, "a.") | torch_arrays(3, "b."))
    net = gradflow.load(path)
    assert [one.name for one in net.layers] == ["b.l0"]
    assert "--activation=tanh" in net.unsupported["a.l0"]
    with pytest.raises(ValueError, match="a.l0: Expected the activation.*--activation=relu"):
        gradflow.load(saved(tmp_path / "b.npz", torch_arrays(1, "a.")))
    with pytest.raises(ValueError, match="got a.l0: Expected the activation"):
        gradflow.load(path, layer="a")


def test_names_of_no_framework_ask_for_the_convention(tmp_path):
    arrays = dict(zip(["W_x", "W_h", "b_x", "b_h"], torch_arrays(3).values(), strict=True))
    path = saved(tmp_path / "a.npz", arrays)
    with pytest.raises(ValueError, match="layer: Expected names of PyTorch.*--convention=torch"):
        gradflow.load(path)
    layer = gradflow.load(path, convention="torch")["layer"]
    assert layer.spec == "gru" and "PyTorch, blocks of rows r z n, two biases" in layer.convention
    with pytest.raises(ValueError, match=r"by the convention keras, got \(12, 4\). It fits the"):
        gradflow.load(path, convention="keras")
    with pytest.raises(ValueError, match="convention torch or keras for named arrays, got flax"):
        gradflow.load(path, convention="flax")
    keras = saved(tmp_path / "k.npz", keras_arrays())
    with pytest.raises(ValueError, match=r"by the convention torch, got \(4, 16\). It fits the"):
        gradflow.load(keras, convention="torch")


def test_a_single_bias_is_refused_where_it_is_ambiguous(tmp_path):
    lstm = torch_arrays(4, end="", bias=False) | {"bias": array(4 * HIDDEN)}
    layer = gradflow.load(saved(tmp_path / "a.npz", lstm))["cell"]
    assert layer.convention.endswith("one bias")
    np.testing.assert_array_equal(layer.params["i"]["b"], lstm["bias"][:HIDDEN])
    gru = torch_arrays(3, end="", bias=False) | {"bias": array(3 * HIDDEN)}
    with pytest.raises(ValueError, match="Expected the two biases"):
        gradflow.load(saved(tmp_path / "b.npz", gru))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight_hh_l0": None}, "got only weight_ih_l0"),
        ({"weight_hh_l0": array(20, 4)}, r"1, 3 or 4 gates .* got \(20, 4\)"),
        ({"weight_hh_l0": array(16, 0)}, r"1, 3 or 4 gates .* got \(16, 0\)"),
        ({"weight_ih_l0": array(12, 3)}, r"Expected arrays of the shapes .*\(12, 3\)"),
        ({"bias_ih_l0": array(4)}, r"Expected arrays of the shapes .*'b_x': \(4,\)"),
        ({"weight_hr_l0": array(4, 0)}, "Expected arrays of the shapes"),
        ({"weight_hh_l0": array(16)}, r"Expected 2 axes in weight_hh_l0, got the shape \(16,\)"),
        ({"weight_hh_l0": np.ones((16, 4), int)}, "Expected floating-point .*before quantisation"),
    ],
)
def test_arrays_that_are_no_layer_are_refused(tmp_path, change, message):
    arrays = {k: v for k, v in (torch_arrays() | change).items() if v is not None}
    with pytest.raises(ValueError, match=message):
        gradflow.load(saved(tmp_path / "a.npz", arrays))


def test_a_layer_that_does_not_fit_the_one_below_is_refused(tmp_path):
    arrays = torch_arrays() | torch_arrays(end="_l1") | torch_arrays(1, "r.")
    arrays |= torch_arrays(1, "r.", "_l1", input_size=HIDDEN)
    net = gradflow.load(saved(tmp_path / "a.npz", arrays), verify=False)
    assert (
        "Expected inputs of size 4, the outputs of the layer below, got 3" in net.unsupported["l1"]
    )
    above = torch_arrays(3, "g.", "_l1") | {
        "g.weight_hh_l0": array(2, 3),
        "g.weight_ih_l0": array(2),
    }
    layer = gradflow.load(saved(tmp_path / "b.npz", above), verify=False)["g.l1"]
    assert layer.fed_by == () and layer.note == "the layer below was not imported"


def test_choosing_a_layer_forgets_what_feeds_it(tmp_path):
    arrays = torch_arrays() | torch_arrays(end="_l1", input_size=HIDDEN)
    path = saved(tmp_path / "a.npz", arrays)
    assert gradflow.load(path, verify=False)["l1"].fed_by == ("l0",)
    (layer,) = gradflow.load(path, layer="l1", verify=False).layers
    assert layer.name == "l1" and layer.fed_by == ()
    with pytest.raises(ValueError, match="layer.*l0, l1"):
        gradflow.load(path, layer="l2")


def test_other_names_are_listed_with_the_nearest(tmp_path):
    arrays = {f"conv{k}.weight": array(1) for k in range(9)} | {"lstm.weights_hh_l0": array(16, 4)}
    with pytest.raises(ValueError, match="conv0.weight.*and more.*nearest is lstm.weights_hh_l0"):
        gradflow.load(saved(tmp_path / "a.npz", arrays))
    with pytest.raises(ValueError, match=r"got x\. Rename"):
        gradflow.load(saved(tmp_path / "b.npz", {"x": array(2)}))


def test_without_pytorch_the_layers_are_not_verified(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    layer = gradflow.load(saved(tmp_path / "a.npz", torch_arrays()))["l0"]
    assert layer.error is None and layer.note == "not verified: PyTorch is not installed"
    assert layer.verification == "not verified"


@pytest.mark.skipif(not HAS_TORCH, reason="PyTorch is not installed")
def test_swapped_gates_do_not_pass(tmp_path, monkeypatch):
    monkeypatch.setitem(gates.ORDERS["torch"], "gru", "zrn")
    with pytest.raises(ValueError, match="follows another convention"):
        gradflow.load(saved(tmp_path / "a.npz", torch_arrays(3)))


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float32])
def test_safetensors_of_any_type_are_read(tmp_path, dtype):
    arrays = {name: value.astype(dtype) for name, value in torch_arrays().items()}
    save_file(arrays, tmp_path / "a.safetensors")
    layer = gradflow.load(tmp_path / "a.safetensors")["l0"]
    found = np.concatenate([layer.params[gate]["W_h"] for gate in "ifgo"])
    np.testing.assert_array_equal(found, arrays["weight_hh_l0"].astype(np.float64))


def test_a_file_of_gradflow_is_one_layer(tmp_path):
    spec, path = "stack(cells='lstm(forget_bias=2),gru')", tmp_path / "own.safetensors"
    shapes = jax.eval_shape(resolve(spec)(2, 3).init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: array(*leaf.shape), shapes)
    params[0]["f"]["b"][1] = np.nan
    save_params(path, params, cell=spec, input_size=2, hidden_size=3)
    net = gradflow.load(path)
    layer = net["cell"]
    assert net.framework == "gradflow" and layer.spec == spec and layer.error is None
    assert (layer.input_size, layer.hidden_size) == (2, 3)
    assert layer.note.startswith("written by gradflow; 0.f.b has 1 numbers that are not finite")
    jax.tree.map(np.testing.assert_array_equal, layer.params, params)


def test_damaged_files_of_gradflow_are_errors(tmp_path):
    def written(cell, arrays):
        about = {"cell": cell, "input_size": 2, "hidden_size": 3}
        save_file(arrays, tmp_path / "a.safetensors", {"gradflow": json.dumps(about)})
        return tmp_path / "a.safetensors"

    arrays = {"W_x": array(3, 2), "W_h": array(3, 3), "c": array(3)}
    with pytest.raises(ValueError, match="Expected arrays of the shapes .* for the cell rnn"):
        gradflow.load(written("rnn", arrays))
    with pytest.raises(ValueError, match="Cannot use the cell of"):
        gradflow.load(written("mine.py:cell", arrays))
    with pytest.raises(ValueError, match="Cannot make the cell rnn.residual=3."):
        gradflow.load(written("rnn(residual=3)", arrays))


def test_an_array_in_the_order_of_fortran_is_read(tmp_path):
    arrays = {name: np.asfortranarray(value) for name, value in torch_arrays().items()}
    layer = gradflow.load(saved(tmp_path / "a.npz", arrays), verify=False)["l0"]
    np.testing.assert_array_equal(layer.params["i"]["W_x"], arrays["weight_ih_l0"][:HIDDEN])


def header(text):
    body = text.encode()
    return b"\x93NUMPY\1\0" + len(body).to_bytes(2, "little") + body


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no array",
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (9000000000000, 4), }\n"),
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 4), }\n"),
        header("{'descr': '|O', 'fortran_order': False, 'shape': (), }\n") + bytes(8),
        header("{'descr': 'what', 'fortran_order': False, 'shape': (1,), }\n") + bytes(8),
        header("(" * 500),
    ],
)
def test_damaged_arrays_of_numpy_are_errors(tmp_path, content):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weight_ih_l0.npy", content)
        archive.writestr("weight_hh_l0.npy", content)
    with pytest.raises(ValueError, match="undamaged archive.*weight_.*_l0"):
        gradflow.load(path)


def test_objects_in_an_archive_of_numpy_are_not_unpickled(tmp_path):
    arrays = torch_arrays() | {"weight_hh_l0": np.array([{}, []], object)}
    with pytest.raises(ValueError, match="undamaged archive.*weight_hh_l0"):
        gradflow.load(saved(tmp_path / "a.npz", arrays))


def test_damaged_safetensors_are_errors(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file(torch_arrays(), path)
    content = path.read_bytes()
    for broken in (content[:-8], content[:40]):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="Expected a safetensors file"):
            gradflow.load(path)


def test_groups_are_in_the_order_of_computation():
    names = [
        "rnn.weight_hh_l1_reverse",
        "rnn.weight_hh_l0",
        "rnn.weight_hh_l1",
        "x.bias",
        "a/kernel",
    ]
    groups = find_groups(names)
    assert [group.name for group in groups] == ["rnn.l0", "rnn.l1", "rnn.l1_reverse"]
    assert groups[2].fed_by == ("rnn.l0",)


def test_bytes_of_numpy_are_refused(tmp_path):
    buffer = io.BytesIO()
    np.savez(buffer, **(torch_arrays() | {"weight_hh_l0": np.zeros((16, 4), "V2")}))
    (tmp_path / "a.npz").write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match="Expected floating-point numbers"):
        gradflow.load(tmp_path / "a.npz")


def test_a_signalling_nan_is_imported_without_a_warning(tmp_path):
    arrays = {name: value.astype(np.float32) for name, value in torch_arrays().items()}
    arrays["bias_ih_l0"].view(np.uint32)[0] = 0x7FA00000
    layer = gradflow.load(saved(tmp_path / "a.npz", arrays))["l0"]
    assert layer.note.startswith("i.b has 1 numbers that are not finite")
