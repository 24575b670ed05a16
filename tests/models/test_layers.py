"""Models among Flax's layers: the same numbers, and gradients for every parameter."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gradflow.cells import gru, rnn
from gradflow.interop import as_nnx
from gradflow.models import Classifier, Recurrent, bidirectional, many_to_many, many_to_one

D, H, T, B = 2, 3, 5, 3
LENGTHS = [5, 2, 4]
REAL = np.arange(T)[:, None] < LENGTHS


def values(layer):
    return nnx.to_pure_dict(nnx.state(layer, nnx.Param))["params"]


def test_a_bidirectional_layer_is_flaxs(key):
    layer = Recurrent(bidirectional(rnn(D, H), gru(D, H)), rngs=nnx.Rngs(1))
    forward, backward = (as_nnx(cell, rngs=nnx.Rngs(0)) for cell in (rnn(D, H), gru(D, H)))
    for cell, name in ((forward, "forward"), (backward, "backward")):
        nnx.update(cell, {"params": values(layer)[name]})
    inputs = jax.random.normal(key, (T, B, D))
    theirs = nnx.Bidirectional(nnx.RNN(forward), nnx.RNN(backward), time_major=True)
    expected = theirs(inputs, seq_lengths=jnp.asarray(LENGTHS))
    ours = layer(inputs, lengths=LENGTHS)
    np.testing.assert_allclose(np.asarray(ours)[REAL], np.asarray(expected)[REAL], rtol=1e-12)


def classifier(seed=0):
    rngs = nnx.Rngs(seed)
    models = [bidirectional(rnn(4, H), rnn(4, H)), many_to_one(gru(2 * H, 5))]
    return Classifier(nnx.Embed(7, 4, rngs=rngs), models, features=4, num_classes=2, rngs=rngs)


def test_a_classifier_is_its_layers_in_turn(key):
    model = classifier()
    symbols = jax.random.randint(key, (T, B), 0, 7)
    scores = model(symbols, lengths=LENGTHS)
    x = np.asarray(model.front.embedding[...])[np.asarray(symbols)]
    lower, upper = (layer.model.apply for layer in model.layers)
    h = np.asarray(lower(values(model.layers[0]), jnp.asarray(x), lengths=LENGTHS))
    real = h[REAL]
    h = (h - real.mean(axis=0)) / np.sqrt(real.var(axis=0) + 1e-5)
    h = np.asarray(upper(values(model.layers[1]), jnp.asarray(h), lengths=LENGTHS))
    expected = h @ np.asarray(model.head.kernel[...]) + np.asarray(model.head.bias[...])
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_padding_changes_no_score(key):
    symbols = jax.random.randint(key, (T, B), 0, 7)
    other = jnp.where(REAL, symbols, (symbols + 1) % 7)
    assert (other != symbols).any()
    one, two = (classifier()(s, lengths=LENGTHS) for s in (symbols, other))
    np.testing.assert_array_equal(one, two)
    assert abs(classifier()(symbols) - classifier()(other)).max() > 1e-3


def test_every_parameter_learns(key):
    model = classifier()
    symbols = jax.random.randint(key, (T, B), 0, 7)
    gradients = nnx.grad(lambda model: (model(symbols, lengths=LENGTHS) ** 2).sum())(model)
    leaves = jax.tree_util.tree_leaves_with_path(gradients)
    assert len(leaves) == 1 + 2 * 3 + 2 + (3 * 3 + 1) + 2
    for path, leaf in leaves:
        assert abs(leaf).max() > 1e-9, jax.tree_util.keystr(path)


def test_the_front_may_be_a_convolution_along_time(key):
    rngs, inputs = nnx.Rngs(0), jax.random.normal(key, (T, B, D))
    conv = nnx.Conv(D, 4, kernel_size=2, padding="CAUSAL", rngs=rngs)
    turn = lambda x: jnp.swapaxes(x, 0, 1)  # noqa: E731
    front = nnx.Sequential(turn, conv, turn)
    model = Classifier(front, [many_to_many(rnn(4, H))], features=4, num_classes=2, rngs=rngs)
    kernel, bias = np.asarray(conv.kernel[...]), np.asarray(conv.bias[...])
    before = np.concatenate([np.zeros((1, B, D)), inputs[:-1]])
    x = jnp.asarray(before @ kernel[0] + np.asarray(inputs) @ kernel[1] + bias)
    expected = model.head(model.layers[0](x))
    np.testing.assert_allclose(model(inputs), expected, rtol=1e-4, atol=1e-6)
    assert model(inputs).shape == (T, B, 2)


def test_a_classifier_without_a_model_is_refused():
    with pytest.raises(ValueError, match="Expected at least one model, got none"):
        Classifier(lambda x: x, [], features=2, num_classes=2, rngs=nnx.Rngs(0))


def test_the_code_of_the_page_gives_the_shapes_that_it_says():
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    names, found = {}, []
    for block in blocks:
        exec(block, names)
        name, shape = re.findall(r"^(\w+) = .*  # (\(.*\))$", block, re.MULTILINE)[-1]
        found.append((str(names[name].shape), shape))
    assert len(found) == 4 and all(ours == said for ours, said in found)
