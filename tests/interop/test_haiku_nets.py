"""Recurrent cores of Haiku, by their parameters, against Haiku itself."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from foreign import check_log_norms, check_outputs, check_step, random_inputs

import gradflow

hk = pytest.importorskip("haiku")

EXACT = 1e-12

CORES = {
    "lstm": lambda: hk.LSTM(4),
    "gru_reset_before": lambda: hk.GRU(4),
    "rnn(activation='relu')": lambda: hk.VanillaRNN(4),
    "rnn(activation='relu') ": lambda: hk.VanillaRNN(4, double_bias=False),
}


def randomised(params):
    random = np.random.default_rng(2)
    return jax.tree.map(lambda leaf: random.normal(size=leaf.shape) / 2, params)


def transformed(function):
    return hk.without_apply_rng(hk.transform(function))


@pytest.mark.parametrize("spec", CORES)
def test_every_core_equals_haiku(spec):
    def unrolled(x):
        core = CORES[spec]()
        return hk.dynamic_unroll(core, x, core.initial_state(x.shape[1]))[0]

    model = transformed(unrolled)
    params = randomised(model.init(jax.random.key(0), jnp.ones((5, 2, 3))))
    (layer,) = gradflow.load(params).layers
    assert layer.spec == spec.strip() and layer.error < EXACT
    run = lambda x: np.swapaxes(model.apply(params, np.swapaxes(x, 0, 1).astype(float)), 0, 1)  # noqa: E731
    check_outputs(layer, run, EXACT)

    def one_step(state, x):
        return CORES[spec]()(x, hk.LSTMState(*state) if isinstance(state, tuple) else state)

    single = transformed(one_step)

    def step(carry, x):
        h, new = single.apply(params, carry, x)
        return (tuple(new) if isinstance(carry, tuple) else new), h

    check_step(layer, step, EXACT)
    check_log_norms(layer, step, 1e-9)


def test_names_of_modules_in_modules():
    class Model(hk.Module):
        def __init__(self):
            super().__init__(name="net")
            self.core = hk.DeepRNN([hk.LSTM(4), jax.nn.relu, hk.LSTM(3)])
            self.named = hk.LSTM(2, name="encoder")

        def __call__(self, x):
            y, _ = hk.dynamic_unroll(self.core, x, self.core.initial_state(2))
            return hk.dynamic_unroll(self.named, y, self.named.initial_state(2))[0]

    model = transformed(lambda x: Model()(x))
    params = randomised(model.init(jax.random.key(0), jnp.ones((5, 2, 3))))
    assert [layer.name for layer in gradflow.load(params).layers] == ["net.lstm", "net.lstm_1"]
    net = gradflow.load(params, convention="haiku")
    assert {layer.name for layer in net.layers} == {"net.lstm", "net.lstm_1", "net.encoder"}
    x = random_inputs(3).astype(float)
    y = net["net.lstm_1"].run(np.maximum(net["net.lstm"].run(x), 0))
    expected = np.swapaxes(model.apply(params, np.swapaxes(x, 0, 1)), 0, 1)
    np.testing.assert_allclose(net["net.encoder"].run(y), expected, rtol=0, atol=EXACT)


def test_without_haiku_the_note_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "haiku", None)
    params = {"gru": {"w_i": np.ones((3, 6)), "w_h": np.ones((2, 6)), "b": np.ones(6)}}
    layer = gradflow.load(params)["gru"]
    assert layer.error is None and "Haiku is not installed" in layer.note
