"""The networks that learn copy memory, their learning rates and gradients, against NumPy."""

from functools import partial

import jax
import jax.numpy as jnp
import kerg2019_copy
import numpy as np
import pytest
from kerg2019_copy import NETS, Config, modrelu_rnn, reach, run


def test_a_modrelu_rnn_is_initialised_orthogonal_and_follows_its_equation():
    cell = modrelu_rnn(3, 5)
    params = cell.init(jax.random.key(0))
    np.testing.assert_allclose(params["W_h"] @ params["W_h"].T, np.eye(5), atol=1e-12)
    draw = np.random.default_rng(0)
    h, x, b = draw.normal(size=5), draw.normal(size=3), np.array([-2.0, -0.2, 0.0, 0.3, -9.0])
    a = np.asarray(params["W_h"]) @ h + np.asarray(params["W_x"]) @ x
    moved = np.sign(a) * np.maximum(np.abs(a) + b, 0)
    found = cell.step({**params, "b": jnp.asarray(b)}, jnp.asarray(h), jnp.asarray(x))[0]
    np.testing.assert_allclose(found, moved, atol=1e-12)


@pytest.mark.parametrize("name", NETS)
def test_each_parameter_is_updated_at_its_own_learning_rate(name):
    net = NETS[name]
    params = {"cell": net.make(2, 4).init(jax.random.key(0)), "readout": {"W": jnp.ones((2, 4))}}
    slopes = jax.tree.map(jnp.ones_like, params)
    make, rate = net.optimiser()
    moves, _ = make(rate).update(slopes, make(rate).init(params), params)
    # RMSprop's first step of a gradient of 1: the rate over the root of 1 - decay.
    first = -1 / np.sqrt(1 - net.decay)
    rates = {key: net.slow_rate if key in net.slow else net.rate for key in params["cell"]}
    assert set(net.slow) <= set(rates)
    for key, rate in rates.items():
        for move in jax.tree.leaves(moves["cell"][key]):
            np.testing.assert_allclose(move, first * rate, rtol=1e-5)
    np.testing.assert_allclose(moves["readout"]["W"], first * net.rate, rtol=1e-5)


def test_the_gradient_is_that_of_a_product_of_jacobians():
    cell = NETS["RNN"].make(2, 3)
    params = cell.init(jax.random.key(1))
    inputs = jax.random.normal(jax.random.key(2), (4, 2))
    found = jax.jit(partial(reach, cell))(params, inputs)["log_norm"]
    h, jacobians = np.zeros(3), []
    for x in np.asarray(inputs):
        h = np.tanh(np.asarray(params["W_h"]) @ h + np.asarray(params["W_x"]) @ x)
        jacobians.append((1 - h**2)[:, None] * np.asarray(params["W_h"]))
    product, wanted = np.eye(3), [0.0]
    for J in reversed(jacobians):
        product = product @ J
        wanted.append(np.log(np.linalg.norm(product, 2)))
    np.testing.assert_allclose(found, wanted, atol=1e-9)


def test_verdicts_compare_the_losses_with_the_baseline():
    import xarray

    baseline = kerg2019_copy.copy(200).baseline
    losses = np.array([[3.0, 1.2, 1.05], [3.0, 0.8, 0.3], [3.0, 0.8, 0.7], [3.0, 1.1, 0.95]])
    names = ["RNN", "RNN-orth", "nnRNN", "LSTM"]
    dataset = xarray.Dataset(
        {
            "loss": (("length", "net", "seed", "update"), baseline * losses[None, :, None]),
            "log_norm": (("length", "net", "when", "seed", "lag"), np.zeros((1, 4, 2, 1, 4))),
            "baseline": ("length", [baseline]),
        },
        coords={"length": [200], "net": names, "update": [0, 10, 20], "when": ["start", "end"]},
    )

    def verdicts(dataset):
        return {claim.id: claim.verdict for claim in kerg2019_copy.claims(dataset)}

    found = {claim.id: claim for claim in kerg2019_copy.claims(dataset)}
    assert found["fig2-RNN-orth-200"].verdict == "qualitatively reproduced"
    assert [number.value for number in found["fig2-RNN-orth-200"].measured] == [20, 0.3]
    assert found["fig2-nnRNN-200"].verdict == "not reproduced"
    assert found["fig2-settled-200"].verdict == "reproduced"
    assert found["fig2-settled-200"].measured[-1].value == 20
    above = dataset.assign(loss=dataset.loss * 1.1)  # RNN is 16 % above the baseline
    assert verdicts(above)["fig2-settled-200"] == "not reproduced"
    # Nothing is learnt: every network stays at the baseline.
    same = dataset.assign(loss=dataset.loss * 0 + dataset.baseline)
    assert verdicts(same)["fig2-settled-200"] == "not reproduced"
    assert "fig2-settled-200" not in verdicts(dataset.isel(net=[0, 1, 2]))


def test_an_unknown_network_is_reported():
    with pytest.raises(ValueError, match=r"Unknown network 'RNN-orht'.*RNN-orth"):
        run(Config(nets=("RNN-orht",)))


def test_two_lengths_are_padded_into_one_dataset():
    sizes = {"hidden_size": 4, "batch_size": 2, "num_updates": 2, "eval_every": 1, "eval_size": 4}
    found = run(Config(nets=("RNN-orth",), lengths=(3, 5), num_seeds=2, **sizes))
    for length, steps in ((3, 23), (5, 25)):
        norms = found.log_norm.sel(length=length).dropna("lag")
        assert norms.sizes["lag"] == steps + 1 and norms.lag[-1] == steps
        assert abs(norms.sel(when="start")).max() < 1e-4
    kerg2019_copy.figure(found)
