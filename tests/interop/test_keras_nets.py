"""Layers of Keras 3, in memory and in files, against Keras itself."""

import json
import os
import subprocess
import sys
import warnings

import jax
import numpy as np
import pytest
from foreign import T, check_log_norms, check_outputs, check_step, random_inputs

import gradflow
from gradflow.interop.keras import runs as keras_runs
from gradflow.interop.keras.cells import ACTIVATIONS
from gradflow.interop.net import feed, to_lowest

os.environ.setdefault("KERAS_BACKEND", "jax")
keras = pytest.importorskip("keras")
layers = keras.layers

# Keras itself converts its variables in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def random_weights(model) -> None:
    """Weights of a trained model: no bias is zero, no matrix orthogonal."""
    random = np.random.default_rng(7)
    model.set_weights([random.normal(size=w.shape) / 2 for w in model.get_weights()])


def chain(*stack, size: int = 3, name: str = "chain"):
    """A model of the layers one after the other, with random weights."""
    model = keras.Sequential([keras.Input((T, size), name="x"), *stack], name=name)
    random_weights(model)
    return model


KINDS = {
    "lstm": lambda **o: layers.LSTM(4, **o),
    "gru": lambda **o: layers.GRU(4, **o),
    "gru_reset_before": lambda **o: layers.GRU(4, reset_after=False, **o),
    "rnn": lambda **o: layers.SimpleRNN(4, **o),
}


def run(model, x):
    """The outputs in float32: with x64 on, Keras's loops on JAX mix both types and fail."""
    with jax.enable_x64(False):
        return np.asarray(keras.ops.convert_to_numpy(model(x)))


def keras_step(cell):
    """One step of a Keras cell on single examples."""

    def step(carry, x):
        states = list(carry) if isinstance(carry, tuple) else [carry]
        h, new = cell(x[None], [s[None] for s in states])
        new = tuple(s[0] for s in new)
        return new if isinstance(carry, tuple) else new[0], h[0]

    return step


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_two_bidirectional_layers_equal_keras(kind, use_bias, tmp_path):
    make = KINDS[kind]
    model = chain(
        layers.Bidirectional(make(return_sequences=True, use_bias=use_bias), name="first"),
        layers.Dropout(0.5),
        layers.Bidirectional(make(return_sequences=True, use_bias=use_bias), name="second"),
    )
    model.save(tmp_path / "net.keras")
    net = gradflow.load(tmp_path / "net.keras")
    names = ["first.forward", "first.reverse", "second.forward", "second.reverse"]
    assert [layer.name for layer in net.layers] == names
    assert [layer.direction for layer in net.layers] == ["forward", "reverse"] * 2
    assert [layer.fed_by for layer in net.layers] == [()] * 2 + [tuple(names[:2])] * 2
    assert all(layer.error is not None and layer.error < 1e-12 for layer in net.layers)
    assert all(layer.spec == kind for layer in net.layers)

    x = random_inputs(3)
    inputs = feed(net, to_lowest(net, x))
    outputs = [net[name].run(inputs[name]) for name in names[2:]]
    np.testing.assert_allclose(np.concatenate(outputs, -1), run(model, x), rtol=0, atol=1e-6)
    for name, half in (("first.forward", "forward_layer"), ("second.reverse", "backward_layer")):
        wrapper = model.get_layer(name.partition(".")[0])
        check_step(net[name], keras_step(getattr(wrapper, half).cell))
    check_log_norms(net["second.reverse"], keras_step(wrapper.backward_layer.cell))
    captured = net.capture({"x": x})
    for name in names:
        np.testing.assert_allclose(captured[name], inputs[name], rtol=0, atol=1e-6)


def test_a_model_in_memory_gives_the_same_as_its_file(tmp_path):
    inner = chain(layers.Dense(5), layers.GRU(3, return_sequences=True, name="g"), name="inner")
    model = chain(
        layers.GaussianNoise(0.1),
        layers.LSTM(4, return_sequences=True, go_backwards=True, name="a"),
        layers.LSTM(3, return_sequences=True, go_backwards=True, name="b"),
        inner,
        layers.RNN([layers.LSTMCell(2), layers.GRUCell(3)], return_sequences=True, name="cells"),
        layers.RNN(layers.SimpleRNNCell(2), return_sequences=True, name="one"),
        layers.Reshape((T, 2, 1)),
        layers.TimeDistributed(layers.LSTM(2), name="each"),
        layers.Dense(2),
    )
    model.save(tmp_path / "net.keras")
    model.save_weights(tmp_path / "net.weights.h5")
    (tmp_path / "net.json").write_text(model.to_json())
    nets = [
        gradflow.load(model),
        gradflow.load(tmp_path / "net.keras"),
        gradflow.load(tmp_path / "net.weights.h5", config=str(tmp_path / "net.json")),
        gradflow.load(tmp_path / "net.weights.h5", config=str(tmp_path / "net.keras")),
    ]
    names = ["a", "b", "inner.g", "cells.0", "cells.1", "one", "each"]
    directions = ["reverse"] + ["forward"] * 6
    fed_by = [(), ("a",), (), ("inner.g",), ("cells.0",), ("cells.1",), ()]
    x = random_inputs(3)
    for net in nets:
        assert [layer.name for layer in net.layers] == names
        assert [layer.direction for layer in net.layers] == directions
        assert [layer.fed_by for layer in net.layers] == fed_by
        for ours, same in zip(net.layers, nets[0].layers, strict=True):
            np.testing.assert_array_equal(
                ours.run(x[..., :1].repeat(ours.input_size, -1)),
                same.run(x[..., :1].repeat(same.input_size, -1)),
            )
    probe = keras.Model(model.inputs, [model.get_layer(n).output for n in ("a", "b", "one")])
    a, b, one = (run(lambda x, k=k: probe([x])[k], x) for k in range(3))
    for net in nets:
        captured = net.capture({"x": x})
        np.testing.assert_allclose(net["a"].run(captured["a"])[:, ::-1], a, atol=1e-6)
        np.testing.assert_allclose(net["b"].run(captured["b"]), b, atol=1e-6)
        np.testing.assert_allclose(net["one"].run(captured["one"]), one, atol=1e-6)
        assert set(captured) >= set(names) - {"each"}


def test_every_activation_is_keras_own(tmp_path):
    for name in {*ACTIVATIONS, "hard_sigmoid"}:
        layer = layers.SimpleRNN(3, activation=name)
        layer.build((2, T, 2))
        random_weights(layer)
        found = gradflow.load(layer).layers[0]
        layer.return_sequences = True
        check_outputs(found, lambda x, layer=layer: run(layer, x), 2e-6)
    for name in ("leaky_relu", "gelu", "softmax", "exponential", "soft_shrink"):
        layer = layers.LSTM(3, activation=name)
        layer.build((2, T, 2))
        assert name in gradflow.load(layer).unsupported[layer.name]


@pytest.mark.parametrize("kind", ["lstm", "gru", "gru_reset_before"])
def test_gates_have_their_own_activation(kind):
    layer = KINDS[kind](activation="relu6", recurrent_activation="hard_sigmoid")
    layer.build((2, T, 3))
    random_weights(layer)
    found = gradflow.load(layer).layers[0]
    assert found.spec == f"{kind}(activation='relu6', gate_activation='hard_sigmoid')"
    check_step(found, keras_step(layer.cell))


def test_the_graph_of_a_functional_model(tmp_path):
    x = keras.Input((T, 3), name="x")
    hidden, h, c = layers.LSTM(4, return_sequences=True, return_state=True, name="encoder")(x)
    back = layers.GRU(3, return_sequences=True, go_backwards=True, name="back")(x)
    back = keras.ops.flip(back, axis=1)
    both = layers.Concatenate(name="both")([hidden, back])
    reader = layers.LSTM(4, return_sequences=True, name="decoder")(both, initial_state=[h, c])
    mixed = layers.SimpleRNN(2, return_sequences=True, name="mixed")(layers.Dense(3)(reader))
    summed = layers.Bidirectional(
        layers.LSTM(2, return_sequences=True), merge_mode="sum", name="summed"
    )(mixed)
    last = layers.LSTM(2, name="last")(summed)
    model = keras.Model(x, last)
    random_weights(model)
    model.save(tmp_path / "net.keras")
    for net in (gradflow.load(model), gradflow.load(tmp_path / "net.keras")):
        assert net["decoder"].fed_by == ("encoder", "back")
        assert "state of another layer" in net["decoder"].note
        assert net["mixed"].fed_by == net["last"].fed_by == ()
        assert net["summed.reverse"].fed_by == ("mixed",)
        assert [layer.direction for layer in net.layers if layer.name == "back"] == ["reverse"]
        inputs = feed(net, {name: random_inputs(3) for name in ("encoder", "back")})
        captured = net.capture({"x": random_inputs(3)})
        np.testing.assert_allclose(captured["decoder"], inputs["decoder"], atol=1e-6)


def test_inputs_by_name_and_of_unknown_time(tmp_path):
    a, b = keras.Input((T, 2), name="a"), keras.Input((T, 3), name="b")
    left = layers.GRU(2, return_sequences=True, go_backwards=True, name="left")(a)
    right = layers.GRU(2, return_sequences=True, name="right")(b)
    mixed = layers.GRU(2, name="mixed")(layers.Concatenate()([left, right]))
    model = keras.Model({"a": a, "b": b}, mixed)
    net = gradflow.load(model)
    assert "may have reversed" in net["mixed"].note and net["mixed"].fed_by == ()
    batch = {"a": random_inputs(2), "b": random_inputs(3)}
    captured = net.capture(batch)
    for name, given in (("left", "a"), ("right", "b")):
        np.testing.assert_array_equal(captured[name], batch[given])
    with pytest.raises(ValueError, match="sample that the Keras model takes"):
        net.capture({"a": random_inputs(2)[:, :, :1], "b": random_inputs(3)})


def test_a_sample_with_other_names_says_which_inputs_there_are():
    net = gradflow.load(chain(layers.GRU(2, name="gru")))
    batch = {"x": random_inputs(3), "y": np.zeros(2)}
    assert list(net.capture(batch)) == ["gru"]  # targets beside the inputs do no harm
    message = "array for each input of the Keras model, x, got the arrays batch, y. Save them under"
    with pytest.raises(ValueError, match=message):
        net.capture({"batch": random_inputs(3), "y": np.zeros(2)})
    with pytest.raises(ValueError, match="sample that the Keras model takes") as raised:
        net.capture({"x": random_inputs(4)})
    assert "\x1b" not in str(raised.value)


def test_masks_are_captured_in_the_time_of_the_model():
    cells = layers.RNN([layers.LSTMCell(2), layers.GRUCell(3)], return_sequences=True, name="cells")
    both = layers.Bidirectional(layers.GRU(2, return_sequences=True), name="both")
    model = chain(layers.Masking(), both, cells, layers.Dense(2))
    x = random_inputs(3)
    x[1, 2:] = 0
    mask = np.arange(T) < np.full(len(x), T)[:, None]
    mask[1, 2:] = False
    captured = gradflow.load(model).capture({"x": x})
    names = ["both.forward", "both.reverse", "cells.0", "cells.1"]
    assert list(captured.masks) == names == list(captured)
    for name in names:
        np.testing.assert_array_equal(captured.masks[name], mask)


def test_a_subclass_of_a_model_is_walked_in_memory_and_told_by_shapes_in_a_file(tmp_path):
    class Own(keras.Model):
        def __init__(self, **options):
            super().__init__(**options)
            self.one = layers.LSTM(4, return_sequences=True, name="one", activation="relu")
            self.two = layers.Bidirectional(layers.GRU(3), name="two")

        def call(self, x):
            return self.two(self.one(x))

    model = Own()
    with pytest.raises(ValueError, match="Build the model: call it once"):
        gradflow.load(Own())
    x = random_inputs(3)
    run(model, x)
    net = gradflow.load(model)
    assert [layer.name for layer in net.layers] == ["one", "two.forward", "two.reverse"]
    captured = net.capture({"x": x})
    outputs = net["one"].run(captured["one"])
    np.testing.assert_allclose(captured["two.forward"], outputs, rtol=0, atol=1e-6)
    model.save(tmp_path / "net.keras")
    file = gradflow.load(tmp_path / "net.keras")
    assert [layer.name for layer in file.layers] == ["two.forward", "two.reverse", "one"]
    assert "order of their names" in file.note
    # The file has no configuration of the layers; that they are assumed is said.
    assert file["one"].spec == "lstm" and "without configuration" in file["one"].note
    assert file["two.reverse"].direction == "reverse" and file.capture is None


def test_a_model_in_the_old_format_of_keras_3(tmp_path):
    inner = chain(layers.GRU(3, return_sequences=True, name="g"), name="inner")
    model = chain(inner, layers.Bidirectional(layers.LSTM(4), name="bi"), layers.Dense(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(tmp_path / "net.h5")
    net = gradflow.load(tmp_path / "net.h5")
    for layer, same in zip(net.layers, gradflow.load(model).layers, strict=True):
        assert layer.name == same.name and layer.fed_by == same.fed_by
        jax.tree.map(np.testing.assert_array_equal, layer.params, same.params)
    x = random_inputs(3)
    expected, found = gradflow.load(model).capture({"x": x}), net.capture({"x": x})
    for name, inputs in expected.items():
        np.testing.assert_allclose(found[name], inputs, rtol=0, atol=1e-6)


def test_layers_and_cells_alone():
    cell = layers.GRUCell(3)
    cell.build((2, 4))
    (layer,) = gradflow.load(cell).layers
    check_step(layer, keras_step(cell))
    with pytest.raises(ValueError, match="with a recurrent layer"):
        gradflow.load(chain(layers.Dense(2)))
    with pytest.raises(ValueError, match="Unknown layer 'b'"):
        gradflow.load(chain(layers.LSTM(2, name="a"), name="net"), layer="b")


IMPORT = """
import sys
from gradflow.interop.keras.runs import keras_module
keras, why = keras_module()
print(why if keras is None else keras.config.backend())
"""


@pytest.mark.parametrize(
    "backend, settings, said",
    [
        ("no_such_package", None, "the backend no_such_package of Keras is not installed"),
        (None, {"backend": "no_such_package"}, "jax"),
        ("broken_backend", None, "Keras cannot be imported"),
    ],
)
def test_keras_is_imported_with_a_backend_that_is_installed(tmp_path, backend, settings, said):
    env = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
    env |= {"KERAS_HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    if backend is not None:
        env["KERAS_BACKEND"] = backend
    (tmp_path / "broken_backend.py").write_text("raise OSError")
    env["PYTHONPATH"] += os.pathsep + str(tmp_path)
    if settings is not None:
        (tmp_path / "keras.json").write_text(json.dumps(settings))
    command = [sys.executable, "-c", IMPORT]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.stdout.startswith(said), done.stderr[-2000:]


def test_without_keras_a_file_is_read_and_says_so(tmp_path, monkeypatch):
    chain(layers.LSTM(2, name="a")).save(tmp_path / "net.keras")
    monkeypatch.setattr(keras_runs, "find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "keras")
    net = gradflow.load(tmp_path / "net.keras")
    assert net["a"].error is None and "Keras is not installed" in net["a"].note
    assert net.capture is None and "cannot be run" in net.note
