"""Flossing before and during training: what it changes, what it keeps, and the accuracy."""

import _flossing
import engelken2023_tasks as tasks
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray

from gradflow import flow
from gradflow.tasks import Batch
from gradflow.train import (
    Schedule,
    Training,
    fit,
    fresh_sequences,
    resolve_clipping,
    resolve_optimiser,
)

CONFIG = tasks.EXPERIMENT.resolve({}, quick=True)
ROWS = {"none": slice(0, 2), "before": slice(2, 4), "during": slice(4, 6)}


@pytest.fixture(scope="module")
def nets():
    return tasks.before(CONFIG)


@pytest.fixture(scope="module")
def training():
    return Training(
        tasks.net(CONFIG.units),
        tasks.task_of("copy", 2, CONFIG.num_steps),
        resolve_optimiser("adam"),
        clipping=resolve_clipping("global_norm(threshold=0.03)"),
        batch_size=16,
        eval_size=CONFIG.eval_size,
    )


@pytest.fixture(scope="module")
def accuracy(nets):
    """Accuracy by update, method and seed."""
    return tasks.train(CONFIG, "copy", 2, nets, None).accuracy.values


def exponents(nets, when, seed, count, num_steps=600):
    """The first exponents of a long driven run, by a QR at every step in NumPy."""
    J, w, b = (nets[name].isel(when=when, seed=seed).values for name in ("W_h", "W_x", "b"))
    rng, h, growths = np.random.default_rng(seed), np.zeros(len(b)), []
    frame = np.linalg.qr(rng.normal(size=(len(b), count)))[0]
    for _ in range(num_steps):
        h = np.tanh(J @ h + w @ rng.integers(0, 2, 1) + b)
        frame, R = np.linalg.qr((1 - h**2)[:, None] * (J @ frame))
        growths.append(np.log(np.abs(np.diag(R))))
    return np.mean(growths[50:], axis=0)


def test_flossing_brings_exponents_nearer_to_zero(nets):
    for seed in range(CONFIG.num_seeds):
        initial, flossed = (exponents(nets, w, seed, CONFIG.num_exponents) for w in (0, 1))
        assert np.mean(flossed**2) < np.mean(initial**2)
    for name in ("W_h", "W_x", "b"):
        assert np.all(nets[name].values[0] != nets[name].values[1])


def test_flossing_loss_is_the_mean_square_of_the_exponents(nets):
    key = jax.random.split(tasks.keys_of(CONFIG, 1)[1], CONFIG.floss_epochs)[0]
    inputs = jax.random.bernoulli(key, 0.5, (CONFIG.floss_steps, 1)).astype(float)
    initial = {name: jnp.asarray(nets[name].values[0, 1]) for name in ("W_h", "W_x", "b")}
    found = flow.lyapunov_exponents(
        tasks.net(CONFIG.units), initial, inputs, num_exponents=4, burn_in=_flossing.BURN_IN
    ).exponents
    np.testing.assert_allclose(nets["size"].values[1, 0], np.sqrt(np.mean(found**2)), rtol=1e-9)


def test_methods_start_alike_except_for_the_flossing(nets, training):
    runs = tasks.start(CONFIG, training, nets)
    none, before, during = ROWS.values()
    keys = np.asarray(jax.random.key_data(runs.key))
    readout = np.asarray(runs.params["readout"]["W"])
    for other in (before, during):
        np.testing.assert_array_equal(keys[none], keys[other])
        np.testing.assert_array_equal(readout[none], readout[other])
    W = np.asarray(runs.params["cell"]["W_h"])
    np.testing.assert_array_equal(W[none], nets["W_h"].values[0])
    np.testing.assert_array_equal(W[before], nets["W_h"].values[1])
    np.testing.assert_array_equal(W[during], nets["W_h"].values[1])


def test_flossing_during_training_changes_only_the_cells_of_its_method(nets, training):
    runs = tasks.start(CONFIG, training, nets)
    after = tasks.again(CONFIG, runs, 2)
    for name, leaf in runs.params["cell"].items():
        same = np.asarray(leaf == after.params["cell"][name])
        assert same[: ROWS["before"].stop].all() and not same[ROWS["during"]].any()
    jax.tree.map(np.testing.assert_array_equal, runs.opt_state, after.opt_state)
    np.testing.assert_array_equal(runs.params["readout"]["W"], after.params["readout"]["W"])


def test_training_between_flossings_is_one_uninterrupted_training(nets, training, accuracy):
    schedule = Schedule(CONFIG.num_updates, CONFIG.eval_every, early_stop=False)
    *_, end = fit(fresh_sequences(training, tasks.start(CONFIG, training, nets)), schedule)
    whole = end.metrics["accuracy"].reshape(-1, 3, CONFIG.num_seeds)
    np.testing.assert_array_equal(accuracy[:, :2], whole[:, :2])
    np.testing.assert_array_equal(accuracy[:2, 2], whole[:2, 2])
    assert not np.array_equal(accuracy[2:, 2], whole[2:, 2])


def test_accuracy_of_bits_equals_a_count_one_by_one():
    rng = np.random.default_rng(0)
    steps, size = 7, 5
    predictions, targets = rng.normal(size=(steps, size, 2)), rng.integers(0, 2, (steps, size))
    weights = np.broadcast_to(np.arange(steps)[:, None] >= 3, (steps, size)).astype(float)
    expected = [
        sum((predictions[t, b, 1] > predictions[t, b, 0]) == targets[t, b] for t in (3, 4, 5, 6))
        / 4
        for b in range(size)
    ]
    batch = Batch(jnp.zeros((steps, size, 1)), jnp.asarray(targets), jnp.asarray(weights))
    np.testing.assert_allclose(tasks.bits_right(jnp.asarray(predictions), batch), expected)


def test_killed_run_resumes_with_the_same_numbers(tmp_path, nets, monkeypatch, accuracy):
    fit = tasks.fit

    def killed(source, schedule, *, folder, identity):
        steps = fit(source, schedule, folder=folder, identity=identity)
        if folder.name == "from-10":  # after its first evaluation
            yield next(steps)
            raise KeyboardInterrupt
        yield from steps

    monkeypatch.setattr(tasks, "fit", killed)
    with pytest.raises(KeyboardInterrupt):
        tasks.train(CONFIG, "copy", 2, nets, tmp_path)
    monkeypatch.setattr(tasks, "fit", fit)
    found = tasks.train(CONFIG, "copy", 2, nets, tmp_path)
    np.testing.assert_array_equal(found.accuracy.values, accuracy)


@pytest.mark.parametrize(
    ("none", "before", "during", "horizon", "order"),
    [
        ((0.99, 0.52), (0.99, 0.8), (1.0, 0.95), True, True),
        ((0.99, 0.62), (0.99, 0.8), (1.0, 0.95), False, True),  # above chance without flossing
        ((0.55, 0.52), (0.8, 0.6), (0.89, 0.7), False, True),  # never learnt to 0.9
        (
            (0.55, 0.65),
            (0.8, 0.99),
            (0.7, 0.95),
            False,
            False,
        ),  # not both at one delay, and in another order
    ],
)
def test_horizon_claim_needs_one_delay_that_only_flossed_networks_learn(
    none, before, during, horizon, order
):
    accuracy = np.stack([none, before, during], axis=-1)[:, None, :, None] * np.ones((2, 2, 3, 3))
    accuracy[:, 0] = 0.5  # before training, which no claim depends on
    accuracy[..., 0] = 1.0  # one seed, which the median ignores
    data = xarray.Dataset(
        {"accuracy": (("point", "update", "flossed", "seed"), accuracy)},
        coords={
            "flossed": list(tasks.METHODS),
            "problem": ("point", ["copy", "copy"]),
            "delay": ("point", [10, 20]),
        },
    )
    found = {claim.id: claim.verdict == "reproduced" for claim in tasks.about(data, "copy")}
    assert found == {"tasks-copy-horizon": horizon, "tasks-copy-during": order}
