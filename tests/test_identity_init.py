"""The study of initialisation at the identity: its record, its numbers by NumPy, its claims."""

import jax
import numpy as np
import pytest
import xarray
from studies import load

from gradflow import study
from gradflow.cells import rnn
from gradflow.tasks import resolve_task
from gradflow.train.optimisers import resolve_optimiser
from gradflow.train.training import Training

module = load("identity_init")
EXPERIMENT = module.EXPERIMENT
RATES = (0.001, 0.1)
GIVEN = {"learning_rates": RATES, "activations": ("relu",)}
FLAGS = ["--quick", "--learning_rates=0.001,0.1", "--activations=relu"]


def quick(**given):
    return EXPERIMENT.resolve(given, quick=True)


@pytest.fixture(scope="module")
def dataset(folder):
    return study.read_dataset(folder / "result.nc").isel(task=0).sel(activation="relu")


@pytest.fixture(scope="module")
def initial():
    """The initial parameters of the second seed's orthogonal network, by the study's recipe."""
    with study.precision(quick()):
        _, k_cells = jax.random.split(jax.random.key(0))
        cell = rnn(2, 5, activation="relu")  # whose W_h is orthogonal
        return jax.tree.map(np.asarray, cell.init(jax.random.split(k_cells, 2)[1]))


def test_a_run_draws_its_figure(folder):
    assert (folder / "figure.png").stat().st_size > 20_000


def test_the_norms_at_initialisation_are_those_of_numpy(dataset, initial):
    with study.precision(quick()):
        key = jax.random.fold_in(jax.random.key(0), 2)
        inputs = np.asarray(resolve_task("adding(num_steps=8)").sample(key, 4).inputs)
    curves = []
    for x in np.moveaxis(inputs, 1, 0):
        h, product, states = np.zeros(5), np.eye(5), [np.zeros(5)]
        for x_t in x:
            h = np.maximum(initial["W_x"] @ x_t + initial["W_h"] @ h, 0)
            states.append(h)
        norms = [1.0]
        for h in states[:0:-1]:
            product = product @ ((h > 0)[:, None] * initial["W_h"])
            norms.append(np.linalg.norm(product, 2))
        curves.append(np.log(norms))
    for rate in RATES:
        found = dataset.log_norm.sel(start="orthogonal", measured_at=0, rate=rate, run=1)
        np.testing.assert_allclose(found, np.median(curves, axis=0), atol=1e-5)


def test_the_spectra_are_those_of_the_matrices(dataset, initial):
    values = np.linalg.eigvals(initial["W_h"])
    np.testing.assert_allclose(np.abs(values), 1, atol=1e-5)
    first = dataset.isel(update=0)
    for start in ("irnn", "orthogonal"):
        for found in (first.modulus, first.singular):
            np.testing.assert_allclose(found.sel(start=start), 1, atol=1e-5)
    # The product of both is |det W_h|, and neither is 1 where W_h is gaussian.
    critical = dataset.sel(start="critical")
    np.testing.assert_allclose(critical.modulus.prod("index"), critical.singular.prod("index"),
                               rtol=1e-3)  # fmt: skip
    assert bool((critical.singular.isel(index=0) >= critical.modulus.isel(index=0)).all())
    moved = abs(dataset.singular.isel(update=-1) - first.singular).max("index").mean("run")
    assert bool((moved.sel(rate=0.1) > 5 * moved.sel(rate=0.001)).all())


def test_runs_are_ordered_by_start_rate_and_seed(initial):
    with study.precision(config := quick(**GIVEN)):
        task = resolve_task(config.tasks)
        training = Training(rnn(2, 5, activation="relu"), task, resolve_optimiser("adam"))
        runs = module._begin(config, training, "relu")
        keys = jax.random.key_data(runs.key)
    W_h = runs.params["cell"]["W_h"].reshape(3, 2, 2, 5, 5)
    np.testing.assert_allclose(W_h[1, :, 1], [initial["W_h"]] * 2, atol=1e-6)
    np.testing.assert_array_equal(W_h[0], np.broadcast_to(np.eye(5), (2, 2, 5, 5)))
    np.testing.assert_allclose(runs.learning_rate.reshape(3, 2, 2)[2, :, 1], RATES)
    keys = keys.reshape(3, 2, 2, -1)
    assert (keys == keys[:1, :1]).all() and (keys[0, 0, 0] != keys[0, 0, 1]).any()
    assert np.abs(runs.params["cell"]["W_x"].reshape(3, 2, 2, 10)[0]).max() < 0.005  # irnn's


def record(log10, losses):
    """A record of starts with norms of 10^log10 over the whole sequence, and final losses."""
    starts, runs = list(losses), 5
    noise = 1 + 0.01 * np.arange(runs)
    loss = np.array([list(losses.values())]).T * noise
    norms = np.zeros((len(starts), 2, runs, 4)) + np.array(log10)[:, None, None] * np.log(10)
    data = xarray.Dataset(
        {
            "loss": (("start", "run", "update"), np.stack([2 + 0 * loss, loss], -1)),
            "log_norm": (("start", "measured_at", "run", "lag"), norms),
            "modulus": (("start", "run", "update", "index"), np.ones((len(starts), runs, 2, 3))),
        },
        coords={"start": starts, "lag": range(4), "update": [0, 9], "measured_at": [0, 9]},
    )
    data = data.assign(accuracy=0 * data.loss)
    return data.expand_dims(task=["adding"], activation=["relu"], rate=[0.1]).assign(
        num_steps=("task", [3])
    )


def verdicts(data):
    return [claim.verdict for claim in EXPERIMENT.claims(data)]


def test_the_claims_are_decided_by_the_numbers():
    yes, no, unknown = "supported", "not supported", "inconclusive"
    both = record((0.5, -0.9), {"irnn": 0.1, "orthogonal": 0.2, "glorot": 0.3})
    assert verdicts(both) == [yes, yes, yes]
    at_first, trained, learns = EXPERIMENT.claims(both)
    assert "over 2 steps at initialisation" in at_first.statement
    assert "after 9 updates" in trained.statement
    assert [number.value for number in learns.measured] == [0.5, 0.3333]
    lost = record((-0.5, -1.1), {"irnn": 0.3, "orthogonal": 0.2, "glorot": 0.4})
    assert verdicts(lost) == [yes, no, no]
    spread = record((0.9, 0), {"irnn": 0.1, "orthogonal": 0.1})
    spread["log_norm"] = (
        spread.log_norm + (np.arange(5) - 2.0)[:, None]
    )  # the interval reaches beyond 1
    assert verdicts(spread)[0] == unknown
    # Another start at the identity is no comparison.
    assert len(verdicts(record((2.0, 0), {"irnn": 0.3, "identity": 0.2}))) == 2
    assert verdicts(both.sel(start=["orthogonal", "glorot"])) == []


def test_each_start_is_shown_at_its_best_rate():
    two = xarray.concat(
        [record((0, 0), {"irnn": 0.3, "glorot": 0.2}),
         record((1, 1), {"irnn": 0.1, "glorot": np.nan}).assign_coords(rate=[0.2])],
        dim="rate", data_vars="all",
    )  # fmt: skip
    best = module.at_best_rate(two).isel(task=0, activation=0)
    np.testing.assert_array_equal(best.rate.sel(start=["irnn", "glorot"]), [0.2, 0.1])
    np.testing.assert_allclose(best.loss.sel(start=["irnn", "glorot"])[:, 0, -1], [0.1, 0.2])


def test_a_dead_run_has_no_spectrum():
    matrices = np.stack([np.full((2, 2), np.nan), np.array([[0.0, 4.0], [1.0, 0.0]])])
    found = module._of_finite(module._moduli, matrices)
    np.testing.assert_allclose(found, [[np.nan, np.nan], [2, 2]])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"starts": ("irn",)}, "Unknown start 'irn'. Did you mean 'irnn'"),
        ({"starts": ()}, "Expected at least one start, got none. Try irnn."),
        ({"activations": ("rleu",)}, "Unknown activation of mean-field theory 'rleu'"),
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
