"""The study of initialisation at the identity: its record, its norms by NumPy, its claims."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray
from studies import load

from gradflow import study
from gradflow.cells import resolve, rnn
from gradflow.tasks import resolve_task
from gradflow.train import Schedule, Training, begin, fit, fresh_sequences
from gradflow.train.clipping import resolve_clipping
from gradflow.train.optimisers import resolve_optimiser

MODULE = load("identity_init")
EXPERIMENT = MODULE.EXPERIMENT


def quick(**given):
    return EXPERIMENT.resolve(given, quick=True)


@pytest.fixture(scope="module")
def adding(dataset):
    return dataset.isel(task=0)


def test_the_norms_at_initialisation_are_those_of_numpy(adding):
    config = quick()
    with study.precision(config):
        key = jax.random.fold_in(jax.random.key(0), 2)
        inputs = np.asarray(resolve_task("adding(num_steps=8)").sample(key, 4).inputs)
        k_cell = MODULE.tuning.runs.cell_key(MODULE.tuning.keys(config)[0][1])
        params = jax.tree.map(np.asarray, rnn(2, 5, activation="relu").init(k_cell))
    curves = []
    for x in np.moveaxis(inputs, 1, 0):
        h, product, states = np.zeros(5), np.eye(5), []
        for x_t in x:
            h = np.maximum(params["W_x"] @ x_t + params["W_h"] @ h, 0)
            states.append(h)
        norms = [1.0]
        for h in states[::-1]:
            product = product @ ((h > 0)[:, None] * params["W_h"])
            norms.append(np.linalg.norm(product, 2))
        curves.append(np.log(norms))
    found = adding.log_norm.sel(network="orthogonal", measured_at=0).isel(seed=1)
    np.testing.assert_allclose(found, np.median(curves, axis=0), atol=1e-5)


def test_a_network_is_trained_at_the_best_rate_of_its_validation_seeds(adding):
    data = adding.sel(network="irnn")
    rate = float(data.validation_loss.median("validation_seed").idxmin("tried_rate"))
    assert float(data.learning_rate) == rate
    with study.precision(config := quick()):
        task = resolve_task("adding(num_steps=8)")
        training = Training(
            resolve(MODULE.NETWORKS["irnn"].spec)(2, 5),
            task,
            resolve_optimiser("adam"),
            resolve_clipping("global_norm(threshold=1)"),
            batch_size=4,
        )
        test, validation = MODULE.tuning.keys(config)
        for keys, rates, expected in (
            (test, [rate, rate], data.loss.isel(update=-1)),
            (
                jnp.concatenate([validation] * 2),
                [0.001, 0.1],
                data.validation_loss.isel(validation_seed=0),
            ),
        ):
            begun = begin(training, keys, jnp.array(rates))
            schedule = Schedule(20, 5, early_stop=False)
            *_, last = fit(fresh_sequences(training, begun), schedule)
            np.testing.assert_allclose(last.metrics["loss"][-1], expected, rtol=1e-4)


def test_every_network_starts_as_its_name_says(key):
    made = {
        name: resolve(one.spec)(2, 20).init(key)
        for name, one in MODULE.NETWORKS.items()
        if name != "lstm"
    }
    for name in ("irnn", "identity"):
        np.testing.assert_array_equal(made[name]["W_h"], np.eye(20))
    np.testing.assert_allclose(made["scaled_identity"]["W_h"], 0.01 * np.eye(20))
    for name in ("orthogonal", "tanh"):
        np.testing.assert_allclose(made[name]["W_h"] @ made[name]["W_h"].T, np.eye(20), atol=1e-12)
    assert np.abs(made["irnn"]["W_x"]).max() < 0.005 < np.abs(made["identity"]["W_x"]).max()


def record(log10, losses):
    """A record of networks with norms of 10^log10 over the whole sequence, and final losses."""
    names, seeds = list(losses), 5
    loss = np.array([list(losses.values())]).T * (1 + 0.01 * np.arange(seeds))
    norms = np.zeros((len(names), 2, seeds, 4)) + np.array(log10)[:, None, None] * np.log(10)
    data = xarray.Dataset(
        {
            "loss": (("network", "seed", "update"), np.stack([2 + 0 * loss, loss], -1)),
            "log_norm": (("network", "measured_at", "seed", "lag"), norms),
        },
        coords={"network": names, "lag": range(4), "update": [0, 9], "measured_at": [0, 9]},
    )
    return data.expand_dims(task=["adding"]).assign(num_steps=("task", [3]))


def verdicts(data):
    return [claim.verdict for claim in EXPERIMENT.claims(data)]


def test_the_claims_are_decided_by_the_numbers():
    yes, no, unknown = "supported", "not supported", "inconclusive"
    all_won = record((0.5, -0.9), {"irnn": 0.1, "orthogonal": 0.2, "lstm": 0.3})
    assert verdicts(all_won) == [yes] * 4
    at_first, trained, *learns = EXPERIMENT.claims(all_won)
    assert "over 2 steps at initialisation" in at_first.statement
    assert "after 9 updates" in trained.statement
    assert [claim.measured[0].value for claim in learns] == [0.5, 0.3333]
    assert learns[1].id == "learns-more-than-lstm-adding"
    lost = record((-0.5, -1.1), {"irnn": 0.3, "orthogonal": 0.2, "glorot": 0.4})
    assert verdicts(lost) == [yes, no, no, yes]
    spread = record((0.9, 0), {"irnn": 0.1, "orthogonal": 0.1})
    spread["log_norm"] = spread.log_norm + (np.arange(5) - 2.0)[:, None]  # beyond 1
    assert verdicts(spread)[0] == unknown
    # Another network at the identity is no comparison.
    assert len(verdicts(record((2.0, 0), {"irnn": 0.3, "identity": 0.2}))) == 2
    assert verdicts(all_won.sel(network=["orthogonal", "lstm"])) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"networks": ("irn",)}, "Unknown network of this study 'irn'. Did you mean 'irnn'"),
        ({"networks": ()}, "Expected at least one network, got none. Try irnn."),
        ({"tasks": ""}, "Expected the name of a task, got ''. Try adding."),
        (
            {"early": 7},
            "Expected --early to be a multiple of eval_every=5 below num_updates=20",
        ),
        ({"num_updates": 21}, "num_updates to be a positive multiple of eval_every=5"),
    ],
)
def test_bad_input_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        EXPERIMENT.run(quick(**given), study.call)
