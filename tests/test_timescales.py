"""The study of how far a weight's gradient reaches: its record by NumPy, its claims."""

import jax
import numpy as np
import optax
import pytest
import xarray
from studies import load

from gradflow import study, unroll
from gradflow.cells import rnn

MODULE = load("timescales")
EXPERIMENT = MODULE.EXPERIMENT
LAST, TRAINED, EVERY = MODULE.PLACES
SIZE, NUM_STEPS, DELAY = 4, 9, 3
FLAGS = ["--quick", "--cells=rnn", f"--hidden_size={SIZE}", f"--num_steps={NUM_STEPS}"]


def by_numpy(run, every):
    """Norms of ∂L/∂h_k and of the components of W_h, b and W_x, index = lag, by hand."""
    key = jax.random.split(jax.random.key(0), 3)[run]
    k_params, k_inputs, _ = jax.random.split(key, 3)
    params = jax.tree.map(np.asarray, rnn(2, SIZE).init(k_params))
    x = np.asarray(jax.random.normal(k_inputs, (NUM_STEPS, 2)))
    h = [np.zeros(SIZE)]
    for x_t in x:
        h.append(np.tanh(params["W_x"] @ x_t + params["W_h"] @ h[-1] + params["b"]))
    adjoint, found = np.zeros(SIZE), []
    for k in range(NUM_STEPS, 0, -1):
        if k > DELAY and (every or k == NUM_STEPS):
            error = h[k][:2] - 0.5 * x[k - 1 - DELAY]
            adjoint[:2] += error / (NUM_STEPS - DELAY if every else 1)
        local = (1 - h[k] ** 2) * adjoint
        size = np.linalg.norm(local)
        found.append([np.linalg.norm(adjoint), size * np.linalg.norm(h[k - 1]), size,
                      size * np.linalg.norm(x[k - 1])])  # fmt: skip
        adjoint = params["W_h"].T @ local
    return np.array(found).T


@pytest.mark.parametrize("place", [LAST, EVERY])
def test_components_and_adjoints_are_those_of_numpy(dataset, place):
    adjoint, *components = by_numpy(1, place == EVERY)
    run = dataset.sel(cell="rnn", run=1, place=place)
    np.testing.assert_allclose(np.exp(run.log_adjoint), adjoint, rtol=1e-9)
    for name, expected in zip(("W_h", "b", "W_x"), components, strict=True):
        np.testing.assert_allclose(
            np.exp(run.log_component.sel(parameter=name)), expected, rtol=1e-9
        )


def test_training_changes_what_is_measured(dataset):
    change = dataset.log_adjoint.sel(place=TRAINED) - dataset.log_adjoint.sel(place=LAST)
    assert bool((abs(change) > 1e-4).any("lag").all())


def test_the_measurements_along_training_begin_at_initialisation_and_end_trained(dataset):
    np.testing.assert_array_equal(dataset["update"], [0, 2, 4, 6])
    for name in ("log_component", "log_adjoint"):
        along = dataset[f"{name}_along"]
        for place, update in ((LAST, 0), (TRAINED, 6)):
            expected = dataset[name].sel(place=place)
            np.testing.assert_array_equal(along.sel(update=update), expected)
        steps = abs(along.diff("update").where(np.isfinite(along))).max("lag")
        assert bool((steps > 1e-6).all())


def test_training_is_that_of_updates_one_by_one():
    config = EXPERIMENT.resolve({"num_updates": 4, "hidden_size": SIZE, "num_steps": 6}, quick=True)
    cell = rnn(2, SIZE)
    params = cell.init(jax.random.key(1))
    along = MODULE._train(config, cell, params, jax.random.key(2))
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(config.learning_rate))

    @jax.jit
    def update(params, memory, key):
        inputs = jax.random.normal(key, (6, config.batch_size, 2))

        def loss(params):
            def one(x):
                return MODULE.every_loss(config, x)(unroll(cell, params, x).outputs)

            return jax.numpy.mean(jax.vmap(one, 1)(inputs))

        steps, memory = optimizer.update(jax.grad(loss)(params), memory)
        return optax.apply_updates(params, steps), memory

    memory, measured = optimizer.init(params), [params]
    for number, key in enumerate(jax.random.split(jax.random.key(2), 4), start=1):
        params, memory = update(params, memory, key)
        measured += [params] if number % 2 == 0 else []
    for index, expected in enumerate(measured):
        jax.tree.map(
            lambda a, b, i=index: np.testing.assert_allclose(a[i], b, rtol=1e-6), along, expected
        )


def test_the_lag_within_which_most_is_heard(dataset):
    norms = np.array([0.0, 8, 1, 1])
    one = dataset.isel(lag=slice(0, 4), parameter=[0])
    with np.errstate(divide="ignore"):
        one = one.assign(log_component=one.log_component * 0 + np.log(norms))
    np.testing.assert_array_equal(MODULE.reach(one.sel(cell="rnn"), LAST), 2)


def test_the_claims_are_decided_by_the_numbers(dataset):
    lag = dataset.lag.values
    fall = dataset.log_adjoint * 0 - 0.5 * lag

    def verdicts(of_last, of_every, of_end=-0.5):
        rates = np.array([of_last, of_last, of_every])
        component = dataset.log_component.fillna(0)
        component = component.where(np.isfinite(component), 0) * 0 + rates[:, None, None] * lag
        slopes = np.linspace(-0.5, of_end, dataset.sizes["update"])
        along = 0 * dataset.log_component_along.fillna(0).where(lag < 0, 0)
        along = along + xarray.DataArray(slopes, dims="update") * dataset.lag
        data = dataset.assign(log_adjoint=fall, log_component=component, log_component_along=along)
        level, further = EXPERIMENT.claims(data)
        assert (level.id, further.id) == ("fall-and-level-rnn", "hear-further-back-rnn")
        return level.verdict, further.verdict

    assert verdicts(-0.51, 0.0)[0] == "supported"
    assert verdicts(-0.6, 0.0)[0] == "not supported"
    assert verdicts(-0.5, -0.2)[0] == "not supported"
    assert verdicts(-0.5, 0.0, of_end=-0.1)[1] == "supported"
    assert verdicts(-0.5, 0.0, of_end=-0.9)[1] == "not supported"
    assert verdicts(-0.5, 0.0)[1] == "inconclusive"  # no growth at all


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"delay": 14}, "Expected a delay below num_steps=14, got 14. Decrease --delay"),
        ({"num_updates": 7}, "Expected num_updates to be a multiple of measure_every=2, got 7"),
        ({"input_size": 7}, "Expected no more inputs than the hidden_size=6 .* got input_size=7"),
        ({"cells": ""}, "Expected the name of a cell, got ''"),
    ],
)
def test_bad_input_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        EXPERIMENT.run(EXPERIMENT.resolve(given, quick=True), study.call)
