"""Files of Keras that are damaged, contradictory or hostile: clear errors, and nothing executed."""

import io
import json
import os
import sys
import zipfile

import h5py
import numpy as np
import pytest

import gradflow
from gradflow.interop.keras import hdf5_child, hdf5_files

H, SIZE = 3, 2


def layer_config(kind="LSTM", name="a", **config):
    inner = {"name": name, "units": H, "return_sequences": True, **config}
    return {"module": "keras.layers", "class_name": kind, "config": inner, "registered_name": None}


def model_config(*layers):
    return {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": "net", "layers": list(layers)},
    }


def write_weights(file, gates=(4,), *, name="lstm"):
    """The groups of Keras 3 for layers of one class, one for each number of gates."""
    for index, gate in enumerate(gates):
        suffix = f"_{index}" if index else ""
        group = file.create_group(f"layers/{name}{suffix}/cell/vars")
        for key, shape in enumerate([(SIZE, gate * H), (H, gate * H), (gate * H,)]):
            group[str(key)] = np.full(shape, 0.1, np.float32)


def write_keras(path, config, write=write_weights):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        write(file)
    with zipfile.ZipFile(path, "w") as archive:
        text = config if isinstance(config, str | bytes) else json.dumps(config)
        archive.writestr("config.json", text)
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1"}))
        archive.writestr("model.weights.h5", buffer.getvalue())
    return path


def load(path, **options):
    return gradflow.load(path, verify=False, **options)


def test_a_written_file_is_read(tmp_path):
    net = load(write_keras(tmp_path / "net.keras", model_config(layer_config())))
    assert [layer.name for layer in net.layers] == ["a"]


@pytest.mark.parametrize(
    "config, message",
    [
        (b"\xff\xfenot json", "configuration in JSON"),
        ("[" * 100_000, "configuration in JSON"),
        ("[1, 2]", "configuration of a model"),
        ('{"class_name": "Sequential", "config": {"layers": [5]}}', "it is damaged"),
        ('{"class_name": "Sequential", "config": {"layers": 7}}', "it is damaged"),
        (model_config(layer_config("Dense")), "with a recurrent layer"),
        (model_config(layer_config(units=5)), "configuration belongs to other weights"),
        (model_config(layer_config(use_bias=False)), "configuration belongs to other weights"),
        (model_config(layer_config("GRU")), "Expected an array 'layers/gru/cell/vars/0'"),
    ],
)
def test_configurations_that_do_not_fit_are_refused(tmp_path, config, message):
    with pytest.raises(ValueError, match=message):
        load(write_keras(tmp_path / "net.keras", config))


def test_a_deeply_nested_configuration_is_refused(tmp_path):
    text = json.dumps(layer_config())
    head, tail = json.dumps(model_config("x")).split('"x"')
    config = head * 300 + text + tail * 300
    with pytest.raises(ValueError, match="it is damaged|configuration in JSON"):
        load(write_keras(tmp_path / "net.keras", config))


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"activation": "leaky_relu"}, "'leaky_relu' is not among"),
        ({"activation": {"module": "evil", "class_name": "f", "config": {}}}, "'evil.f' is not"),
        ({"activation": ["tanh"]}, "is not among"),
        ({"units": "many"}, "number of units is 'many'"),
    ],
)
def test_a_layer_that_is_not_supported_is_named_and_others_load(tmp_path, change, reason):
    config = model_config(layer_config(), layer_config(name="b", **change))
    write = lambda file: write_weights(file, (4, 4))  # noqa: E731
    net = load(write_keras(tmp_path / "net.keras", config, write))
    assert [layer.name for layer in net.layers] == ["a"]
    assert reason in net.unsupported["b"]


def test_convolutional_and_custom_cells_are_named(tmp_path):
    cell = {"module": "mine", "class_name": "MyCell", "config": {}, "registered_name": "p>MyCell"}
    config = model_config(
        layer_config("ConvLSTM2D", "conv"), layer_config("RNN", "rnn", cell=cell), layer_config()
    )
    net = load(write_keras(tmp_path / "net.keras", config))
    assert [layer.name for layer in net.layers] == ["a"]
    assert "images" in net.unsupported["conv"] and "MyCell" in net.unsupported["rnn"]


def test_code_that_a_configuration_names_is_not_executed(tmp_path, monkeypatch):
    marker = tmp_path / "executed"
    (tmp_path / "evil_module.py").write_text(
        f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n\n\nclass Evil:\n"
        "    def __init__(self, **config):\n        raise SystemExit\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    evil = layer_config("Evil", "evil") | {"module": "evil_module", "registered_name": "x>Evil"}
    function = {"module": "builtins", "class_name": "function", "config": "os.system"}
    lambda_layer = layer_config(
        "Lambda",
        "lambda",
        function={
            "class_name": "__lambda__",
            "config": {"code": "4wEAAAAA", "defaults": None, "closure": None},
        },
    )
    config = model_config(
        layer_config(),
        evil,
        lambda_layer,
        layer_config(name="b", activation=function),
        layer_config("TimeDistributed", "each", layer=evil),
    )

    def write(file):
        write_weights(file, (4, 4))
        file["layers/evil/cell/vars/0"] = np.ones((H, H))

    path = write_keras(tmp_path / "net.keras", config, write)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    for verify in (False, True):
        net = gradflow.load(path, verify=verify)
        assert [layer.name for layer in net.layers] == ["a"]
        assert "code of the user" in net.unsupported["evil"]
        assert "os.system" in net.unsupported["b"]
        assert net.capture is None
    assert "code of the user" in net.note or "cannot be run" in net.note
    assert not marker.exists() and "evil_module" not in sys.modules


def test_a_model_that_keras_cannot_load_has_layers_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    pytest.importorskip("keras")
    config = model_config(layer_config(), layer_config("Dense", "dense", units=2))
    net = gradflow.load(write_keras(tmp_path / "net.keras", config))
    assert net["a"].error is not None and net.capture is not None
    with pytest.raises(ValueError, match="that Keras can load, but it raised"):
        net.capture({"x": np.ones((1, 4, SIZE), np.float32)})


def test_the_groups_of_keras_2_12_are_found(tmp_path):
    def write(file):
        write_weights(file)
        file.move("layers", "_layer_checkpoint_dependencies")

    net = load(write_keras(tmp_path / "net.keras", model_config(layer_config()), write))
    np.testing.assert_allclose(net["a"].params["i"]["b"], 0.1, rtol=1e-6)


def test_names_that_are_no_text_are_damage(tmp_path):
    path = tmp_path / "net.weights.h5"
    with h5py.File(path, "w") as file:
        file[b"layers/\xff\xfe"] = np.ones(2)
    with pytest.raises(ValueError, match="it is damaged .* is not a text"):
        load(path)


def test_a_long_list_of_names_is_in_parts(tmp_path):
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as file:
        file.attrs["names0"], file.attrs["names1"], file.attrs["names10"] = [b"a"], [b"b"], [b"c"]
        file.attrs["other"] = [b"d"]
    with hdf5_files.opened(path) as file:
        assert file.names("", "names") == ["a", "b", "c"]


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "net.weights.h5"
    with h5py.File(path, "w") as file:
        write_weights(file)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:512], whole[:8] + os.urandom(4096)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="it is damaged"):
            load(path)
    bomb = tmp_path / "bomb.keras"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", json.dumps(model_config(layer_config())))
        archive.writestr("model.weights.h5", bytes(2**25))
    with pytest.raises(ValueError, match="zip bomb"):
        load(bomb)


def external(file):
    file.create_dataset("layers/lstm/cell/vars/0", (2, 12), "f4", external=[("other.raw", 0, 96)])


def virtual(file):
    layout = h5py.VirtualLayout((2, 12), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (2, 12))
    file.create_virtual_dataset("layers/lstm/cell/vars/0", layout)


def links(file):
    file["layers/lstm/cell/vars/0"] = h5py.ExternalLink("other.h5", "/x")


def soft_links(file):
    file["layers/lstm/cell/vars/0"] = h5py.SoftLink("/nowhere")


def circle(file):
    group = file.create_group("layers")
    group["again"] = group


def unwritten(file):
    """An array of which nothing is in the file: HDF5 would read zeros."""
    file.create_dataset("layers/lstm/cell/vars/0", (2**20, 2**20), "f4")


def large_chunk(file):
    options = {"maxshape": (None,), "chunks": (2**28,), "compression": "gzip"}
    file.create_dataset("layers/lstm/cell/vars/0", (4,), "f4", **options)


@pytest.mark.parametrize(
    "write, message",
    [
        (external, "stored in another file"),
        (virtual, "stored in another file"),
        (links, "is a link"),
        (soft_links, "is a link"),
        (circle, "groups in a circle"),
        (unwritten, "bytes in memory"),
        (large_chunk, "bytes in memory"),
    ],
)
def test_files_that_reach_outside_or_fill_the_memory_are_refused(tmp_path, write, message):
    path = tmp_path / "net.weights.h5"
    with h5py.File(path, "w") as file:
        write(file)
    with pytest.raises(ValueError, match=message):
        load(path)


def test_one_array_under_many_names_is_counted_each_time(tmp_path):
    path = tmp_path / "net.weights.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("large", data=np.zeros((512, 512), "f4"))
        for k in range(20):
            file[f"copy_{k}"] = file["large"]
    with hdf5_files.opened(path) as file, pytest.raises(ValueError, match="bytes in memory"):
        for name in list(file.arrays):
            file.read(name)
            file.read(name)


def test_arrays_of_texts_are_refused_and_bfloat16_is_read(tmp_path):
    def write(file):
        write_weights(file, ())
        group = file.create_group("layers/lstm/cell/vars")
        # bfloat16 is the upper half of float32; HDF5 does not know it.
        ones = (np.ones((SIZE, 4 * H), np.float32).view(np.uint32) >> 16).astype("<u2")
        group.create_dataset("0", data=ones.view("V2"))
        group["0"].attrs["dtype"] = "bfloat16"
        group["1"], group["2"] = np.ones((H, 4 * H)), np.ones(4 * H)

    layer = load(
        write_keras(
            tmp_path / "net.keras",
            model_config(
                layer_config(),
            ),
            write,
        )
    )["a"]
    np.testing.assert_array_equal(layer.params["i"]["W_x"], np.ones((H, SIZE)))

    def write_texts(file):
        write_weights(file)
        del file["layers/lstm/cell/vars/1"]
        file["layers/lstm/cell/vars/1"] = [b"text"] * 3

    with pytest.raises(ValueError, match="Expected an array of floats"):
        load(write_keras(tmp_path / "net.keras", model_config(layer_config()), write_texts))


def test_a_missing_configuration_and_a_missing_owner(tmp_path):
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"gone"]
    with pytest.raises(ValueError, match="weights of the layer 'gone'"):
        load(path)
    with pytest.raises(FileNotFoundError, match="Check the path in config"):
        load(path, config=str(tmp_path / "none.json"))
    with h5py.File(path, "w") as file:
        group = file.create_group("other")
        group.attrs["weight_names"] = [b"kernel:0"]
        file.attrs["layer_names"] = [b"other"]
    config = tmp_path / "net.json"
    config.write_text(json.dumps(model_config(layer_config())))
    with pytest.raises(ValueError, match="weights of the recurrent layer 'a'"):
        load(path, config=str(config))


def test_no_flipped_byte_raises_anything_else(tmp_path):
    path = tmp_path / "net.weights.h5"
    with h5py.File(path, "w") as file:
        write_weights(file)
    whole = path.read_bytes()
    random = np.random.default_rng(3)
    refused = 0
    for place in random.integers(0, 2**12, 25):  # where the structure of the file is
        content = bytearray(whole)
        content[place] ^= int(random.integers(1, 256))
        path.write_bytes(content)
        try:
            load(path)
        except (ValueError, OSError) as error:
            assert "\n" not in str(error)
            refused += 1
    assert 2 < refused


@pytest.mark.parametrize("end", ["os.abort()", "time.sleep(60)", "print('half of a line', end='')"])
def test_a_crash_of_the_library_is_an_error(tmp_path, monkeypatch, end):
    """HDF5 crashes on some damaged files, and hangs on others."""
    script = tmp_path / "child.py"
    script.write_text(f"import os, time\n{end}\n")
    monkeypatch.setattr(hdf5_child, "__file__", str(script))
    monkeypatch.setattr(hdf5_files, "_SECONDS", 1.0)
    path = write_keras(tmp_path / "net.keras", model_config(layer_config()))
    with pytest.raises(ValueError, match="it is damaged|reading it fails"):
        load(path)
