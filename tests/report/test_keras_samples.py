"""Diagnoses of Keras models whose samples are padded, or not finite."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradflow
from gradflow import flow
from gradflow.report import diagnose

os.environ.setdefault("KERAS_BACKEND", "jax")
keras = pytest.importorskip("keras")

# Keras itself converts its variables in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

WORDS = 7


def reader():
    """An embedding that masks word 0, before a GRU."""
    keras.utils.set_random_seed(0)
    embedding = keras.layers.Embedding(WORDS, 2, mask_zero=True)
    layers = [keras.Input((6,), dtype="int32"), embedding, keras.layers.GRU(3, name="gru")]
    return keras.Sequential(layers)


def test_padded_steps_that_keras_skips_are_not_measured():
    model = reader()
    tokens = np.asarray([[1, 2, 3, 4, 5, 6], [3, 1, 2, 4, 0, 0]])
    found = diagnose(model, sample=tokens, advice=False)
    net = gradflow.load(model)
    layer, inputs = net["gru"], net.capture({"tokens": tokens})["gru"]
    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, layer.params)
        for row, length in enumerate((6, 4)):
            x = jnp.asarray(inputs[row, :length], float)
            norms = flow.log_norms(layer.cell, params, x)
            np.testing.assert_allclose(found.layer0_log_norm[row, : length + 1], norms, atol=1e-6)
            assert np.isnan(found.layer0_log_norm[row, length + 1 :]).all()


@pytest.mark.parametrize("advice", [False, True])
def test_inputs_that_are_not_finite_are_named_on_the_page(advice, tmp_path):
    tokens = np.full((2, 6), WORDS + 1)  # Keras on JAX embeds tokens out of range as NaN
    diagnose(reader(), sample=tokens, advice=advice, folder=tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    message = "The inputs of this layer are not finite from step 1 on, in 2 of 2 sequences."
    assert message in page
