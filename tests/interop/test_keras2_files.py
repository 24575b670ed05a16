"""Files of Keras 2, written here in their documented layout, against references in NumPy."""

import json
import os

import h5py
import numpy as np
import pytest
from foreign import T, keras_gru, keras_lstm, random_inputs

import gradflow
from gradflow.report.samples import captured_batches

os.environ.setdefault("KERAS_BACKEND", "jax")

# Keras itself converts its variables in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

H, SIZE = 3, 2
RANDOM = np.random.default_rng(11)


def hard_sigmoid(x):
    """That of Keras 2."""
    return np.clip(0.2 * x + 0.5, 0, 1)


def draw(*shape):
    return (RANDOM.normal(size=shape) / 2).astype(np.float32)


def from_cudnn(K, gates):
    """The kernel that cuDNN reads: each gate in its order in memory, as (hidden, input)."""
    return np.hstack([block.ravel().reshape(H, -1).T for block in np.split(K, gates, 1)])


def cudnn_lstm(x, K, R, b):
    """What cuDNN computes with the numbers that Keras 2 hands over, with two biases of 4 H."""
    return keras_lstm(x, from_cudnn(K, 4), from_cudnn(R, 4), sum(np.split(b.astype(float), 2)))


def cudnn_gru(x, K, R, b):
    """The same for the GRU, with the reset gate after the product."""
    return keras_gru(x, from_cudnn(K, 3), from_cudnn(R, 3), *np.split(b, 2))


def write(path, owners, *, config=None, version="2.2.4"):
    """A file of Keras 2: a group for each layer with its arrays by name; a configuration or none.

    The owners are the layers: ``{layer: {array: values}}``.
    """
    with h5py.File(path, "w") as file:
        root = file
        if config is not None:
            file.attrs["model_config"] = json.dumps(config).encode()
            file.attrs["keras_version"] = version.encode()
            root = file.create_group("model_weights")
        root.attrs["layer_names"] = [name.encode() for name in owners]
        root.attrs["backend"] = b"tensorflow"
        root.attrs["keras_version"] = version.encode()
        for owner, arrays in owners.items():
            group = root.create_group(owner)
            group.attrs["weight_names"] = [name.encode() for name in arrays]
            for name, values in arrays.items():
                group.create_dataset(name, data=values)
    return path


def entry(kind, name, **config):
    return {"class_name": kind, "config": {"name": name, **config}}


def sequential(*layers):
    return {"class_name": "Sequential", "config": {"name": "net", "layers": list(layers)}}


def arrays_of(prefix, K, R, b):
    return {
        f"{prefix}/kernel:0": K,
        f"{prefix}/recurrent_kernel:0": R,
        f"{prefix}/bias:0": b,
    }


def check(layer, reference, *arrays, reverse=False):
    x = random_inputs(layer.input_size).astype(float)
    turn = -1 if reverse else 1
    expected = np.stack([reference(one[::turn], *arrays)[::turn] for one in x])
    np.testing.assert_allclose(layer.run(x), expected, rtol=0, atol=1e-12)


def test_a_whole_model_of_keras_2(tmp_path):
    first = draw(SIZE, 4 * H), draw(H, 4 * H), draw(4 * H)
    forward = draw(H, 3 * H), draw(H, 3 * H), draw(3 * H)
    backward = draw(H, 3 * H), draw(H, 3 * H), draw(3 * H)
    last = draw(2 * H, H), draw(H, H), draw(H)
    config = sequential(
        entry(
            "LSTM",
            "lstm_1",
            units=H,
            return_sequences=True,
            recurrent_activation="hard_sigmoid",
            activation="tanh",
        ),
        entry("Dropout", "dropout_1", rate=0.5),
        entry(
            "Bidirectional",
            "bidirectional_1",
            merge_mode="concat",
            layer=entry(
                "GRU",
                "gru_1",
                units=H,
                return_sequences=True,
                recurrent_activation="sigmoid",
                reset_after=False,
            ),
        ),
        entry("SimpleRNN", "simple_rnn_1", units=H, activation="relu", go_backwards=True),
    )
    owners = {
        "lstm_1": arrays_of("lstm_1", *first),
        "dropout_1": {},
        "bidirectional_1": arrays_of("bidirectional_1/forward_gru_1", *forward)
        | arrays_of("bidirectional_1/backward_gru_1", *backward),
        "simple_rnn_1": arrays_of("simple_rnn_1", *last),
    }
    net = gradflow.load(write(tmp_path / "model.h5", owners, config=config))
    assert net.framework == "Keras 2.2.4"
    lstm_1, one, two, rnn = net.layers
    assert lstm_1.spec == "lstm(gate_activation='hard_sigmoid_fifth')"
    check(lstm_1, lambda *a: keras_lstm(*a, gate=hard_sigmoid), *first)
    assert one.fed_by == two.fed_by == ("lstm_1",)
    assert (one.name, two.name) == ("bidirectional_1.forward", "bidirectional_1.reverse")
    for layer, (K, R, b), reverse in ((one, forward, False), (two, backward, True)):
        check(
            layer,
            lambda x, K, R, b: keras_gru(x, K, R, b, 0 * b, reset_after=False),
            K,
            R,
            b,
            reverse=reverse,
        )
    assert rnn.fed_by == (one.name, two.name) and rnn.direction == "reverse"
    assert rnn.spec == "rnn(activation='relu')"


SAVED = {  # what Keras 2 writes beside, and Keras 3 need not understand
    "kernel_initializer": {
        "class_name": "VarianceScaling",
        "config": {"scale": 1.0, "mode": "fan_avg", "distribution": "uniform", "seed": None},
    },
    "kernel_regularizer": None,
    "bias_constraint": None,
}


@pytest.mark.parametrize("form", ["Sequential", "list", "Model"])
@pytest.mark.parametrize("is_whole", [True, False])
def test_a_model_of_keras_2_is_run_on_a_sample(form, is_whole, tmp_path):
    pytest.importorskip("keras")
    table = draw(5, SIZE)
    kernel, lstm = (draw(SIZE, H), draw(H)), (draw(H, 4 * H), draw(H, 4 * H), draw(4 * H))
    one, two = ((draw(H, 3 * H), draw(H, 3 * H), draw(3 * H)) for _ in range(2))
    layers = [
        entry("Embedding", "e", input_dim=5, output_dim=SIZE, batch_input_shape=[None, T]),
        entry("Dense", "d", units=H, activation="hard_sigmoid", **SAVED),
        entry("LSTM", "a", units=H, return_sequences=True, recurrent_activation="hard_sigmoid"),
        entry(
            "Bidirectional",
            "b",
            merge_mode="concat",
            layer=entry(
                "GRU",
                "gru",
                units=H,
                return_sequences=True,
                reset_after=False,
                implementation=1,
                **SAVED,
            ),
        ),
    ]
    config = sequential(*layers)
    if form == "list":
        config["config"] = layers
    if form == "Model":
        shape = layers[0]["config"].pop("batch_input_shape")
        layers.insert(0, entry("InputLayer", "x", batch_input_shape=shape))
        before = [[], *([[[one["config"]["name"], 0, 0, {}]]] for one in layers[:-1])]
        graph = [
            {**one, "name": one["config"]["name"], "inbound_nodes": nodes}
            for one, nodes in zip(layers, before, strict=True)
        ]
        ends = {"input_layers": [["x", 0, 0]], "output_layers": [["b", 0, 0]]}
        config = {"class_name": "Model", "config": {"name": "net", "layers": graph, **ends}}
    owners = {
        "e": {"e/embeddings:0": table},
        "d": {"d/kernel:0": kernel[0], "d/bias:0": kernel[1]},
        "a": arrays_of("a", *lstm),
        "b": arrays_of("b/forward_gru", *one) | arrays_of("b/backward_gru", *two),
    }
    path = write(tmp_path / "model.h5", owners, config=config if is_whole else None)
    (tmp_path / "net.json").write_text(json.dumps(config))
    net = gradflow.load(path, config=None if is_whole else str(tmp_path / "net.json"))
    tokens = RANDOM.integers(0, 5, (2, T))
    found = net.capture({"tokens": tokens})
    dense = hard_sigmoid(table[tokens] @ kernel[0] + kernel[1])
    np.testing.assert_allclose(found["a"], dense, atol=1e-6)
    np.testing.assert_allclose(found["b.forward"], net["a"].run(dense), atol=1e-6)
    np.testing.assert_array_equal(found["b.reverse"], found["b.forward"])


def test_what_cannot_be_run_says_why(tmp_path):
    pytest.importorskip("keras")
    arrays = draw(SIZE, 4 * H), draw(H, 4 * H), draw(8 * H)
    owners = {"a": arrays_of("a", *arrays)}
    config = sequential(entry("CuDNNLSTM", "a", units=H, batch_input_shape=[None, T, SIZE]))
    net = gradflow.load(write(tmp_path / "model.h5", owners, config=config))
    with pytest.raises(ValueError, match="that Keras can load, but it raised .*CuDNNLSTM"):
        net.capture({"x": random_inputs(SIZE)})
    weights = gradflow.load(write(tmp_path / "weights.h5", owners))
    assert weights.capture is None
    with pytest.raises(ValueError, match="no configuration, without which.*--model_config"):
        captured_batches(weights, {"x": random_inputs(SIZE)}, None)


@pytest.mark.parametrize("has_config", [True, False])
def test_layers_for_cudnn(tmp_path, has_config):
    first = draw(SIZE, 4 * H), draw(H, 4 * H), draw(8 * H)
    second = draw(H, 3 * H), draw(H, 3 * H), draw(6 * H)
    config = sequential(
        entry("CuDNNLSTM", "a", units=H, return_sequences=True), entry("CuDNNGRU", "b", units=H)
    )
    owners = {"a": arrays_of("a", *first), "b": arrays_of("b", *second)}
    path = write(tmp_path / "model.h5", owners, config=config if has_config else None)
    net = gradflow.load(path)
    assert [layer.spec for layer in net.layers] == ["lstm", "gru"]
    check(net["a"], cudnn_lstm, *first)
    check(net["b"], cudnn_gru, *second)
    assert "two biases" in net["a"].convention
    assert all(("without configuration" in layer.note) != has_config for layer in net.layers)


def test_weights_alone_tell_the_kinds_by_their_shapes(tmp_path):
    K, R, b = draw(SIZE, 3 * H), draw(H, 3 * H), draw(2, 3 * H)
    owners = {
        "l": arrays_of("l/lstm_cell", draw(SIZE, 4 * H), draw(H, 4 * H), draw(4 * H)),
        "after": arrays_of("after/gru_cell", K, R, b),
        "before": arrays_of("before", draw(SIZE, 3 * H), draw(H, 3 * H), draw(3 * H)),
        "unknown": arrays_of("unknown", draw(SIZE, 5 * H), draw(H, 5 * H), draw(5 * H)),
        "gru_without_bias": {k: v for k, v in arrays_of("g", K, R, b).items() if "bias" not in k},
        "bi": arrays_of("bi/forward_x", K, R, b) | arrays_of("bi/backward_x", R, R, b),
    }
    path = write(tmp_path / "weights.h5", owners)
    net = gradflow.load(path)
    specs = {layer.name: layer.spec for layer in net.layers}
    assert specs == {
        # hard_sigmoid was the default of the gates before Keras 2.3.
        "l": "lstm(gate_activation='hard_sigmoid_fifth')",
        "after": "gru(gate_activation='hard_sigmoid_fifth')",
        "before": "gru_reset_before(gate_activation='hard_sigmoid_fifth')",
        "bi.forward": "gru(gate_activation='hard_sigmoid_fifth')",
        "bi.reverse": "gru(gate_activation='hard_sigmoid_fifth')",
    }
    assert "defaults of Keras 2.2.4" in net["l"].note
    assert "shapes" in net.unsupported["unknown"]
    assert "reset" in net.unsupported["gru_without_bias"]
    newer = gradflow.load(write(tmp_path / "newer.h5", owners, version="2.6.0"))
    assert newer["after"].spec == "gru"
    check(newer["after"], lambda x, K, R, b: keras_gru(x, K, R, *b), K, R, b)
    check(newer["bi.reverse"], lambda x, K, R, b: keras_gru(x, K, R, *b), R, R, b, reverse=True)


def test_the_activation_of_a_simple_rnn_is_asked_for(tmp_path):
    owners = {"r": arrays_of("r", draw(SIZE, H), draw(H, H), draw(H))}
    path = write(tmp_path / "weights.h5", owners)
    with pytest.raises(ValueError, match="activation of the SimpleRNN 'r'"):
        gradflow.load(path)
    assert gradflow.load(path, activation="relu")["r"].spec == "rnn(activation='relu')"
    config = tmp_path / "net.json"
    config.write_text(json.dumps(sequential(entry("SimpleRNN", "r", units=H, activation="elu"))))
    assert gradflow.load(path, config=str(config))["r"].spec == "rnn(activation='elu')"


def test_a_nested_model_and_layers_of_other_names(tmp_path):
    a = draw(SIZE, H), draw(H, H), draw(H)
    b = draw(H, H), draw(H, H), draw(H)
    inner = sequential(
        entry("SimpleRNN", "a", units=H, return_sequences=True), entry("SimpleRNN", "b", units=H)
    )
    config = sequential({**inner, "config": {**inner["config"], "name": "inner"}})
    # A frozen layer comes after the trainable ones.
    owners = {"inner": arrays_of("b", *b) | arrays_of("a", *a)}
    net = gradflow.load(write(tmp_path / "model.h5", owners, config=config))
    assert [layer.name for layer in net.layers] == ["inner.a", "inner.b"]
    np.testing.assert_array_equal(net["inner.a"].params["W_x"], a[0].T)
    assert net["inner.b"].fed_by == ("inner.a",)
    renamed = {"rnn_7": arrays_of("rnn_7", *a)}
    other = sequential(entry("SimpleRNN", "rnn_1", units=H))
    net = gradflow.load(write(tmp_path / "other.h5", renamed, config=other))
    np.testing.assert_array_equal(net["rnn_1"].params["W_x"], a[0].T)


def test_a_file_of_keras_1_is_refused(tmp_path):
    path = write(tmp_path / "old.h5", {"lstm_1": {"lstm_1_W_i": draw(2, 2)}}, version="1.2.2")
    with pytest.raises(ValueError, match="no convention but keras for a file of Keras"):
        gradflow.load(path, convention="torch")
    with pytest.raises(ValueError, match="of Keras 1.2.2. Load it with Keras 2"):
        gradflow.load(path)
