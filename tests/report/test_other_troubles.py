"""Networks that do not learn although their gradient arrives, and what their reports say."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradflow
from gradflow.cells import lstm
from gradflow.interop import Layer, Net
from gradflow.report.experiment import EXPERIMENT
from gradflow.report.losses import Batch
from gradflow.report.nets import diagnose_net
from gradflow.report.sections import whole
from gradflow.study.figure import style

T, SEQUENCES, HIDDEN = 20, 32, 16
CELL = lstm(1, HIDDEN, forget_bias=3.0)
NOTHING_LEARNT = float(np.log(2))
"""The loss of a classifier into two classes that knows nothing."""


def sample(key, trouble):
    """Sequences whose class is the sign of their first number; with a mistake in the pairs."""
    x = jax.random.normal(key, (T + 1, SEQUENCES, 1))
    y = (x[1, :, 0] > 0).astype(x.dtype)
    if trouble == "targets of the next sequence":
        y = jnp.roll(y, 1)
    if trouble == "targets of the step before":
        y = (x[0, :, 0] > 0).astype(x.dtype)
    return x[1:], y


def loss_of_outputs(outputs, readout, y, trouble):
    logits = outputs[-1] @ readout
    if trouble == "dead readout":
        logits = jax.nn.relu(logits - 10)
    return optax.sigmoid_binary_cross_entropy(logits, y).mean()


def train(trouble, num_updates=200):
    """Returns the trained parameters of cell and readout, and the losses."""

    def loss(params, x, y):
        outputs = gradflow.unroll(CELL, params["cell"], x).outputs
        return loss_of_outputs(outputs, params["readout"], y, trouble)

    def update(state, key):
        params, moments = state
        value, gradient = jax.value_and_grad(loss)(params, *sample(key, trouble))
        step, moments = optimiser.update(gradient, moments)
        return (optax.apply_updates(params, step), moments), value

    optimiser = optax.adam(1e-2)
    key_cell, key_readout, key_data = jax.random.split(jax.random.key(0), 3)
    readout = 0.3 * jax.random.normal(key_readout, (HIDDEN,))
    params = {"cell": CELL.init(key_cell), "readout": readout}
    start, keys = (params, optimiser.init(params)), jax.random.split(key_data, num_updates)
    (params, _), losses = jax.jit(lambda start: jax.lax.scan(update, start, keys))(start)
    return params, np.asarray(losses)


def diagnosed(params, trouble, folder):
    """The report of a trained network, with the gradient of its own loss."""
    x, y = sample(jax.random.key(1), trouble)
    outputs = gradflow.unroll(CELL, params["cell"], x).outputs
    gradient = jax.grad(loss_of_outputs)(outputs, params["readout"], y, trouble)
    np.save(folder / "gradient.npy", gradient.swapaxes(0, 1))
    own = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["cell"])
    net = Net("the test's own", (Layer("lstm", "lstm", 1, HIDDEN, own, "the test's own"),))
    batch = Batch(np.asarray(x.swapaxes(0, 1), np.float64), np.full(SEQUENCES, T))
    with jax.enable_x64(True):
        found = diagnose_net(
            net, {"lstm": batch}, loss=f"npy:{folder / 'gradient.npy'}", advice=False
        )
    with style():
        EXPERIMENT.figure(found).savefig(folder / "figure.png")
    return whole(found, {})


def test_the_task_is_learnt_without_a_mistake():
    _, losses = train(None)
    assert losses[:10].mean() > 0.6 and losses[-20:].mean() < NOTHING_LEARNT / 2


@pytest.mark.parametrize(
    "trouble", ["targets of the next sequence", "targets of the step before", "dead readout"]
)
def test_a_network_that_does_not_learn_for_another_reason_has_a_fine_flow(trouble, tmp_path):
    params, losses = train(trouble)
    assert losses[-20:].mean() > 0.98 * NOTHING_LEARNT  # it does not learn
    report = diagnosed(params, trouble, tmp_path)
    levels = {one.topic: one.level for one in report.sections[0].findings}
    assert levels["Reach"] == levels["State"] == "good"
    assert "every step can be learnt from" in report.lead
    if trouble == "dead readout":
        assert levels["Readout"] == "bad" and "∂L/∂h is exactly 0" in report.lead
        assert "The flow through this layer is fine" in report.lead
    else:
        assert levels["Credit"] == levels["Readout"] == "good"
        assert "The flow is fine: if the loss does not fall, the reason is elsewhere" in report.lead
