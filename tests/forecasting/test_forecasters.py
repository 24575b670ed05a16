"""Nets that forecast: what each forecast has read, and the cell that is measured in them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from studies import load_part

from gradflow import unroll

MODULE = load_part("forecasting.forecasters")
dense, forecaster, read_out = MODULE.dense, MODULE.forecaster, MODULE.read_out

NUM_STEPS, AHEAD = 8, 2
SPECS = ("gru", "stack(cells='rnn,rnn')", "conv(cell='rnn')", "batch_norm(cells='rnn,lstm')")


@pytest.mark.parametrize("spec", SPECS)
def test_no_forecast_has_read_what_comes_after_it(spec, key):
    net = forecaster(spec, 3, AHEAD)
    x = jax.random.normal(key, (NUM_STEPS, 5, 1))
    params = net.settle(net.init(key), x)

    def first(series):
        return net.apply(params, x.at[:, 0, 0].set(series))[:, 0]

    jacobian = np.abs(jax.jit(jax.jacrev(first))(x[:, 0, 0])).max(axis=1)
    read = net.first + net.stride * np.arange(len(jacobian))
    assert read[-1] == NUM_STEPS
    for row, last in zip(jacobian, read, strict=True):
        assert row[last - 1] > 0 and not row[last:].any()


@pytest.mark.parametrize("spec", SPECS)
def test_the_measured_cell_is_what_forecasts(spec, key):
    net = forecaster(spec, 3, AHEAD)
    x = jax.random.normal(key, (NUM_STEPS, 5, 1))
    params = net.settle(net.init(key), 3 * x + 1)
    own, read = net.measured(params, x)
    assert jax.tree.structure(own) == jax.tree.structure(jax.eval_shape(net.cell.init, key))
    h = unroll(net.cell, own, read, method="scan").outputs
    expected = read_out(params, h)
    np.testing.assert_allclose(net.apply(params, x), expected, rtol=1e-10, atol=1e-12)


def test_a_batch_norm_uses_the_batch_in_training_and_settled_statistics_after_it(key):
    net = forecaster("batch_norm(cells='rnn,rnn')", 3, AHEAD)
    params, x = net.init(key), jax.random.normal(key, (NUM_STEPS, 5, 1))
    settled = net.settle(params, x)
    np.testing.assert_allclose(net.apply(settled, x), net.train(params, x), rtol=1e-10)
    h = unroll(forecaster("rnn", 3, AHEAD).cell, params["layers"][0]["params"], x).outputs
    mean = settled["norms"][0]["mean"]
    np.testing.assert_allclose(mean, jnp.mean(h, axis=(0, 1)), rtol=1e-10)
    assert np.abs(net.apply(params, x) - net.train(params, x)).max() > 1e-3


def test_dense_is_one_hidden_layer(key):
    net = dense(NUM_STEPS, 3, AHEAD)
    params = jax.tree.map(lambda a: a + 0.1, net.init(key))
    x = jax.random.normal(key, (NUM_STEPS, 5, 1))
    h = np.maximum(params["W_1"] @ x[..., 0] + params["b_1"][:, None], 0)
    expected = (params["W_2"] @ h + params["b_2"][:, None]).T
    np.testing.assert_allclose(net.apply(params, x), expected[None], rtol=1e-12)
    assert net.first == NUM_STEPS


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("conv", "Expected one option, cell='...', got 'conv'"),
        ("conv(cells='gru')", "Expected one option, cell='...'"),
        ("batch_norm(cells=2)", "Expected one option, cells='...'"),
        ("lsmt", "Unknown cell 'lsmt'"),
    ],
)
def test_a_bad_network_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        forecaster(spec, 3, AHEAD)
