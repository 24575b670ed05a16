"""Nets over texts: padding counts for nothing, and dropout is what it is said to be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from studies import load_part

from gradflow import unroll
from gradflow.cells import gru, rnn
from gradflow.cells.dropout import with_dropout
from gradflow.models import many_to_many, many_to_one
from gradflow.models.pooling import convolution, pooled

TEXT, resolve_net = load_part("classification.text"), load_part("classification.nets").resolve_net
drop, drop_columns, text_classifier = TEXT.drop, TEXT.drop_columns, TEXT.text_classifier

SPECS = ("bi_lstm", "two_rnn", "bi_gru(pooling='max')", "rnn(pooling='mean')", "conv")
EMBEDDING, HIDDEN, SYMBOLS, CLASSES = 3, 4, 7, 2
LENGTHS = jnp.array([5, 2, 3])


def classifier(spec, **rates):
    net = resolve_net(spec, EMBEDDING, HIDDEN)
    sizes = {"num_symbols": SYMBOLS, "embedding_size": EMBEDDING, "num_classes": CLASSES}
    return text_classifier(net.layers, **sizes, **rates)


def ids_of(num_steps, padding):
    t = jnp.arange(num_steps)[:, None]
    return jnp.where(t < LENGTHS, 2 + (3 * t + jnp.arange(3)) % (SYMBOLS - 2), padding)


def value_and_gradient(model, params, ids):
    def loss(params):
        scores = model.apply(params, ids, lengths=LENGTHS)
        return jnp.sum(jax.nn.log_softmax(scores)[:, 0] * jnp.array([1.0, -2.0, 3.0])), scores

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)


@pytest.mark.parametrize("spec", SPECS)
def test_padding_takes_no_part_in_scores_loss_or_gradient(spec, key):
    model = classifier(spec)
    params = model.init(key)
    (loss, scores), gradient = value_and_gradient(model, params, ids_of(5, 0))
    np.testing.assert_array_equal(gradient["embedding"][:2], 0)
    assert np.abs(gradient["embedding"][2:]).min() > 0
    for num_steps, padding in ((5, 1), (8, 0)):
        more = value_and_gradient(model, params, ids_of(num_steps, padding))
        np.testing.assert_allclose(more[0][0], loss, rtol=1e-12)
        np.testing.assert_allclose(more[0][1], scores, rtol=1e-12)
        for one, other in zip(jax.tree.leaves(gradient), jax.tree.leaves(more[1]), strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-9, atol=1e-13)
    alone = ids_of(5, 0)[:2, 1:2]  # the second text by itself, which has no padding
    np.testing.assert_allclose(jax.jit(model.apply)(params, alone)[0], scores[1], rtol=1e-12)


def test_padding_leaves_the_state_as_it_was(key):
    cell = gru(EMBEDDING, HIDDEN)
    params, inputs = cell.init(key), jax.random.normal(key, (8, 3, EMBEDDING))
    carries = unroll(cell, params, inputs, lengths=LENGTHS).carries
    for column, length in enumerate(LENGTHS.tolist()):
        after = carries[length:, column]
        np.testing.assert_array_equal(after, jnp.broadcast_to(after[0], after.shape))
        assert (carries[length, column] != carries[length - 1, column]).all()


def test_pooling_is_over_the_real_steps(key):
    cell = rnn(EMBEDDING, HIDDEN)
    params, inputs = cell.init(key), jax.random.normal(key, (6, 3, EMBEDDING))
    h = np.asarray(unroll(cell, params, inputs).outputs)
    for how, function in (("max", np.max), ("mean", np.mean)):
        found = pooled(many_to_many(cell), how).apply(params, inputs, lengths=LENGTHS)
        expected = [function(h[:length, i], axis=0) for i, length in enumerate(LENGTHS)]
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    with pytest.raises(ValueError, match="Unknown pooling 'sum'. .* max, mean"):
        pooled(many_to_many(cell), "sum")


def test_a_convolution_is_a_window_with_zeros_around_the_real_steps(key):
    model = convolution(EMBEDDING, HIDDEN, 3)
    params, inputs = model.init(key), jax.random.normal(key, (5, 1, EMBEDDING))
    found = model.apply(params, inputs, lengths=jnp.array([4]))
    x = np.concatenate([np.zeros((1, EMBEDDING)), inputs[:4, 0], np.zeros((1, EMBEDDING))])
    windows = np.stack([x[t : t + 3] for t in range(4)])
    expected = np.einsum("twi,wio->to", windows, params["kernel"]) + params["bias"]
    np.testing.assert_allclose(found[:4, 0], np.maximum(expected, 0), rtol=1e-9, atol=1e-12)


def test_recurrent_dropout_is_variational_dropout_of_the_cell(key):
    cell, rate = gru(EMBEDDING, HIDDEN), 0.5
    params, inputs = cell.init(key), jax.random.normal(key, (6, 2, EMBEDDING))
    thinned = drop_columns(jax.random.key(3), params, rate)
    W = "r"
    u_h = (thinned[W]["W_h"] == 0).all(axis=0) * -1.0 + 0.9  # below the rate where it is dropped
    assert 0 < (u_h < rate).sum() < HIDDEN
    noisy = {"cell": params, "u_x": jnp.ones(EMBEDDING), "u_h": u_h}
    expected = unroll(with_dropout(cell, rate_h=rate), noisy, inputs).outputs
    np.testing.assert_allclose(unroll(cell, thinned, inputs).outputs, expected, rtol=1e-12)


def test_the_directions_have_masks_of_their_own(key):
    both = {"forward": rnn(2, 40).init(key), "backward": rnn(2, 40).init(key)}
    thinned = drop_columns(key, both, 0.5)
    gone = [np.asarray(thinned[way]["W_h"] == 0).all(axis=0) for way in ("forward", "backward")]
    assert (gone[0] != gone[1]).any() and 5 < gone[0].sum() < 35


def test_dropout_keeps_the_mean_and_is_off_without_a_key(key):
    dropped = np.asarray(drop(key, jnp.ones(100_000), 0.25))
    assert set(dropped) == {0.0, 1 / 0.75}
    np.testing.assert_allclose(dropped.mean(), 1, atol=0.01)
    noisy, quiet = classifier("gru", dropout=0.5, recurrent_dropout=0.5), classifier("gru")
    params, ids = quiet.init(key), ids_of(5, 0)
    scores = quiet.apply(params, ids, lengths=LENGTHS)
    np.testing.assert_array_equal(noisy.apply(params, ids, lengths=LENGTHS), scores)
    one, two = (noisy.apply(params, ids, lengths=LENGTHS, key=jax.random.key(i)) for i in (1, 2))
    assert np.abs(one - scores).min() > 0 and np.abs(one - two).min() > 0


def test_a_net_names_the_cell_whose_flow_is_measured(key):
    for kind in ("bi_", "two_", ""):
        net = resolve_net(f"{kind}lstm(forget_bias=2)", EMBEDDING, HIDDEN)
        assert net.cell_spec == "lstm(forget_bias=2)"
        params = net.cell_params([layer.init(key) for layer in net.layers])
        assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, net.cell.init(key))
    assert resolve_net("conv(width=5)", EMBEDDING, HIDDEN).cell is None
    assert resolve_net("gru(recurrent_dropout=0.25)", EMBEDDING, HIDDEN).recurrent_dropout == 0.25


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("bi_gru(pooling='sum')", "Unknown pooling 'sum'. .* last, max, mean"),
        ("gru(recurrent_dropout=1)", r"Expected recurrent_dropout in \[0, 1\), got 1"),
        ("conv(width=0)", r"Expected conv or conv\(width=3\), got 'conv\(width=0\)'"),
        ("bi_gruu", "Unknown cell 'gruu'. Did you mean 'gru'"),
    ],
)
def test_a_bad_network_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        resolve_net(spec, EMBEDDING, HIDDEN)


def test_a_bad_classifier_is_refused(key):
    sizes = {"num_symbols": SYMBOLS, "embedding_size": EMBEDDING, "num_classes": CLASSES}
    with pytest.raises(ValueError, match="Expected at least one layer, got none"):
        text_classifier([], **sizes)
    for name in ("dropout", "recurrent_dropout"):
        with pytest.raises(ValueError, match=rf"Expected {name} in \[0, 1\), got 1"):
            text_classifier([many_to_one(gru(3, 4))], **sizes, **{name: 1.0})
    noisy = classifier("conv", recurrent_dropout=0.5)
    with pytest.raises(ValueError, match="Expected a cell with a parameter W_h"):
        noisy.apply(noisy.init(key), ids_of(5, 0), key=key)
