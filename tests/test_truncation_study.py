"""The study of truncation: its windows and biases against the definition, its claims."""

import jax
import numpy as np
import pytest
from studies import load

from gradflow import study
from gradflow.cells import gru
from gradflow.tasks import resolve_task
from gradflow.train.direction import compare
from gradflow.train.gradient import full_gradient, tbptt_gradient
from gradflow.train.model import init_model

MODULE = load("truncation")
EXPERIMENT = MODULE.EXPERIMENT


def test_a_run_measures_seconds(dataset):
    assert (dataset.seconds.isel(window=0) > 0).all()
    assert (dataset.temporaries.isel(window=0) > 0).all()


def test_each_task_has_its_windows_up_to_the_whole_sequence(dataset):
    copied, added, first = (MODULE.of_task(dataset, t) for t in dataset.task.values)
    np.testing.assert_array_equal(added.k, first.k)
    np.testing.assert_array_equal(copied.k, [2, 4, 8])
    np.testing.assert_array_equal(MODULE.relative_window(copied), [0.5, 1, 2])
    np.testing.assert_array_equal(added.k, [4, 8])
    for data in (copied, added):
        whole = data.isel(window=-1)
        np.testing.assert_allclose(whole.cosine, 1, rtol=1e-6)
        np.testing.assert_array_equal(whole.norm_ratio, 1)


def test_the_bias_at_initialisation_is_that_of_the_initial_networks(dataset):
    with study.precision(EXPERIMENT.config()):
        task = resolve_task("delayed_copy(delay=3, num_steps=8)")
        batch = task.sample(jax.random.fold_in(jax.random.key(0), 1), 16)
        keys, cell = jax.random.split(jax.random.key(0), 2), gru(1, 5)

        @jax.jit
        def one(key):
            params = init_model(cell, 2, jax.random.fold_in(key, 0))
            exact = full_gradient(task.loss, cell, params, batch).value["cell"]
            cut = tbptt_gradient(task.loss, cell, params, batch, k1=2, k2=2).value["cell"]
            return compare(cut, exact)

        expected = [one(key) for key in keys]
    found = dataset.sel(task="delayed_copy", window=0, stage="initialisation")
    np.testing.assert_allclose(found.cosine, [e.cosine for e in expected], rtol=1e-4)
    np.testing.assert_allclose(found.norm_ratio, [e.norm_ratio for e in expected], rtol=1e-4)
    assert (found.cosine < 0.999).all()


def test_without_the_second_mark_the_target_is_the_first_value(key):
    added = resolve_task("adding(num_steps=7)")
    first = MODULE.first_mark(added)
    whole, batch = added.sample(key, 500), first.sample(key, 500)
    values, marks = np.moveaxis(np.asarray(batch.inputs), -1, 0)
    np.testing.assert_array_equal(values, whole.inputs[..., 0])
    np.testing.assert_array_equal(marks[:3], whole.inputs[:3, :, 1])
    assert (marks[:3].sum(axis=0) == 1).all() and not marks[3:].any()
    target = batch.targets.reshape(-1, 500)[-1]
    np.testing.assert_allclose(target, (values * marks).sum(axis=0))
    assert first.baseline == pytest.approx(float(np.var(target)), rel=0.15)


def test_a_loss_at_the_end_goes_back_k_steps_however_the_sequence_is_cut(key):
    task, cell = resolve_task("adding(num_steps=6)"), gru(2, 3)
    params, batch = init_model(cell, 1, key), task.sample(key, 4)
    problem = MODULE.Problem(task, 6, at_end=True)
    assert MODULE.truncation(problem, 3) == (6, 3) and MODULE.truncation(problem, 6) is None
    assert MODULE.truncation(problem._replace(at_end=False), 3) == (3, 3)

    @jax.jit
    def gradients(params):
        return [tbptt_gradient(task.loss, cell, params, batch, k1=k1, k2=3).value for k1 in (6, 3)]

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-13), *gradients(params))


@pytest.mark.parametrize(
    "solved, cosine, verdicts",
    [
        ((0, 2, 2), 0.95, ("supported", "supported")),
        ((1, 2, 2), 0.8, ("not supported", "not supported")),
        ((0, 1, 2), 0.95, ("supported", "supported")),  # k between L and 2 L does not count
        ((0, 0, 0), 0.9, ("inconclusive", "inconclusive")),
    ],
)
def test_the_claims_are_decided_by_the_solved_seeds_and_the_bias_at_initialisation(
    dataset, solved, cosine, verdicts
):
    dataset = dataset.copy(deep=True)
    at = dataset.solved_at.sel(task="delayed_copy").transpose("window", "seed")
    at.values[:] = np.where(np.arange(2) < np.array(solved)[:, None], 20, np.nan)
    dataset["solved_at"].loc[{"task": "delayed_copy"}] = at
    dataset["cosine"].loc[{"task": "delayed_copy", "stage": "initialisation", "window": 0}] = cosine
    lost, _, _, bias = EXPERIMENT.claims(dataset)
    assert (lost.verdict, bias.verdict) == verdicts
    assert [number.value for number in lost.measured] == [
        solved[0] / 2,
        solved[2] / 2,
        solved[2] / 2,
    ]
    assert bias.measured[0].value == cosine
    EXPERIMENT.draw(dataset)


@pytest.mark.parametrize(
    ("added", "first", "expected"),
    [
        ((2, 2), (0, 2), ("supported", "supported")),
        ((1, 2), (1, 2), ("not supported", "not supported")),
        ((0, 0), (0, 0), ("inconclusive", "inconclusive")),
    ],
)
def test_the_claims_about_adding_are_decided_by_the_windows_before_the_first_mark(
    dataset, added, first, expected
):
    solved_at = dataset.solved_at.copy(deep=True)
    for task, counts in (("adding", added), ("first_mark", first)):
        found = solved_at.sel(task=task).transpose("window", "seed").copy(deep=True)
        found.values[:2] = np.where(np.arange(2) < np.array(counts)[:, None], 20, np.nan)
        solved_at.loc[{"task": task}] = found
    claims = EXPERIMENT.claims(dataset.assign(solved_at=solved_at))[1:3]
    assert tuple(claim.verdict for claim in claims) == expected
    assert claims[0].measured[0].name == "fraction of seeds solved with k = 4"
    assert claims[1].measured[0].value == first[0] / 2


def test_the_long_form_is_longer():
    problems = MODULE.problems(EXPERIMENT.resolve({}, full=True))
    assert (problems["delayed_copy"].needed, problems["adding"].num_steps) == (16, 64)
    short = MODULE.problems(EXPERIMENT.config())["delayed_copy"]
    assert MODULE.windows(EXPERIMENT.config(), short) == [2, 4, 7, 8, 12, 16, 32]


def test_a_delay_as_long_as_the_sequence_is_refused():
    with pytest.raises(ValueError, match="Expected a delay below num_steps=8, got 8. Decrease"):
        EXPERIMENT.run(EXPERIMENT.resolve({"delay": 8}, quick=True), study.call)
