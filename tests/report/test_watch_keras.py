"""A Keras training that is watched by a callback."""

import os

import jax.numpy as jnp
import numpy as np
import pytest

import gradflow
from gradflow import flow

os.environ.setdefault("KERAS_BACKEND", "jax")
keras = pytest.importorskip("keras")

# Keras converts its variables with a signature that NumPy 2 has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

T, N, D, H = 7, 8, 3, 4


def model_of():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((T,), dtype="int32"),
            keras.layers.Embedding(9, D),
            keras.layers.LSTM(H, return_sequences=True, dropout=0.1),
            keras.layers.GRU(H),
            keras.layers.Dense(1),
        ]
    )
    model.compile("sgd", "mse")
    return model


def batches():
    rng = np.random.default_rng(0)
    return rng.integers(0, 9, (4 * N, T)), rng.normal(size=(4 * N, 1))


def fit(model, *callbacks):
    x, y = batches()
    return model.fit(
        x, y, batch_size=N, epochs=2, shuffle=False, verbose=0, callbacks=list(callbacks)
    ).history["loss"]


def test_fit_is_recorded_and_not_disturbed(tmp_path):
    model = model_of()
    callback = gradflow.watch(model, every=3, folder=str(tmp_path), max_cost=None)
    assert fit(model, callback) == fit(model_of())
    found = callback.dataset()
    assert found["update"].values.tolist() == [1, 4, 7]
    names = [layer.name for layer in gradflow.load(model, verify=False).layers]
    assert found["layer"].values.tolist() == names and len(names) == 2
    assert getattr(model.train_function, "__self__", None) is None


def test_the_values_are_those_of_the_current_batch_and_weights(tmp_path):
    model = model_of()
    callback = gradflow.watch(model, every=1, folder=str(tmp_path), max_cost=None, num_sequences=2)
    fit(model, callback)
    x, _ = batches()
    net = gradflow.load(model, verify=False)  # after the last update
    inputs = net.capture({"x": x[-N:][:2]})
    for layer in net.layers:
        params = {g: {n: jnp.asarray(a) for n, a in w.items()} for g, w in layer.params.items()}
        own = jnp.asarray(inputs[layer.name], float)
        expected = np.median([flow.log_norms(layer.cell, params, one) for one in own], axis=0)
        measured = callback.dataset().log_norms.sel(layer=layer.name).values[-1]
        np.testing.assert_allclose(measured, expected, rtol=1e-6)


def test_steps_that_a_mask_skips_are_not_measured(tmp_path):
    embedding = keras.layers.Embedding(9, D, mask_zero=True)
    model = keras.Sequential([keras.Input((T,), dtype="int32"), embedding, keras.layers.LSTM(H)])
    model.compile("sgd", "mse")
    x, lengths = np.ones((2, T), int), (T, 4)
    x[1, lengths[1] :] = 0
    options = {"every": 1, "folder": str(tmp_path), "max_cost": None}
    callback = gradflow.watch(model, **options)
    model.fit(x, np.zeros((2, H)), batch_size=2, verbose=0, callbacks=[callback])
    net = gradflow.load(model, verify=False)  # after the only update
    (layer,), inputs = net.layers, net.capture({"x": x})
    params = {g: {n: jnp.asarray(a) for n, a in w.items()} for g, w in layer.params.items()}
    expected = np.full((2, T + 1), np.nan)
    for row, (one, length) in enumerate(zip(inputs[layer.name], lengths, strict=True)):
        own = jnp.asarray(one[:length], float)
        expected[row, : length + 1] = flow.log_norms(layer.cell, params, own)
    measured = callback.dataset().log_norms.values[-1, 0]
    np.testing.assert_allclose(measured, np.nanmedian(expected, axis=0), rtol=1e-6)


def test_a_sample_is_used_in_place_of_the_batches(tmp_path):
    model = model_of()
    sample = batches()[0][:3]
    options = {"every": 100, "folder": str(tmp_path), "max_cost": None, "sample": sample}
    with gradflow.watch(model, **options) as callback:
        assert callback.dataset().sizes["update"] == 0
        fit(model, callback)
    assert callback.dataset().sizes["update"] == 1
    inputs = gradflow.load(model, verify=False).capture({"x": sample})
    assert callback.dataset().needed_lag.values.tolist() == [[T], [T]] and len(inputs) == 2


def test_a_sample_is_needed_where_batches_are_not_seen(tmp_path, monkeypatch):
    model = model_of()
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    monkeypatch.setattr("gradflow.report.live.keras_callback.load", lambda *a, **k: None)
    with pytest.raises(ValueError, match="Expected a sample with the backend tensorflow"):
        gradflow.watch(model, folder=str(tmp_path))
