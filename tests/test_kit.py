"""What the studies share: one way from a seed to a network, decisions, shared numbers and rows."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from studies import load, one_run

from gradflow import study
from gradflow.cells import lstm
from gradflow.statistics import Estimate
from gradflow.tasks import resolve_task
from gradflow.train.optimisers import resolve_optimiser
from gradflow.train.runs import begin
from gradflow.train.training import Training

VANISHING = load("vanishing")
cells = VANISHING.subjects.cells
curves, decisions, rates, runs = (
    getattr(VANISHING, name) for name in ("curves", "decisions", "rates", "runs")
)
CONFIG = VANISHING.EXPERIMENT.resolve({"seed": 3, "input_size": 2}, quick=True)


def test_a_seed_gives_the_network_that_a_training_starts_from():
    task = resolve_task("adding(num_steps=5)")
    training = Training(cell := lstm(2, 3), task, resolve_optimiser("adam"))
    keys = runs.keys(CONFIG)
    begun = begin(training, keys, jnp.full(len(keys), 0.1)).params["cell"]
    measured = runs.initialise(cell, keys)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-14), measured, begun)


def test_parameters_and_inputs_are_those_of_the_recipe():
    config = dataclasses.replace(CONFIG, num_sequences=2)
    params = runs.initialise(cell := lstm(2, 3), runs.keys(config))
    inputs = runs.inputs(config)
    assert inputs.shape == (6, 20, 2)
    for run in range(3):
        expected, x = one_run(config, cell, run)
        found = jax.tree.map(lambda leaf, run=run: leaf[run], params)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-14), found, expected)
        np.testing.assert_array_equal(inputs[2 * run : 2 * run + 2], x)


def test_no_two_random_choices_share_a_key():
    keys = runs.keys(CONFIG, 4)
    several = [keys, *(jax.vmap(lambda k, n=n: runs.stream(k, n))(keys) for n in range(3))]
    several += [jax.vmap(runs.cell_key)(keys), jax.random.fold_in(jax.random.key(3), runs.INPUTS)]
    data = np.concatenate([np.reshape(jax.random.key_data(k), (-1, 2)) for k in several])
    assert len(np.unique(data, axis=0)) == len(data) == 4 * 5 + 1
    np.testing.assert_array_equal(*(jax.random.key_data(k) for k in (keys[:3], runs.keys(CONFIG))))
    one, other = (runs.inputs(CONFIG, stream=stream) for stream in (0, 1))
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.3


def test_repeated_parameters_stand_beside_the_sequences_of_their_network():
    np.testing.assert_array_equal(runs.repeated({"a": np.array([1, 2])}, 2)["a"], [1, 1, 2, 2])


@pytest.mark.parametrize(
    ("low", "high", "above", "below", "within"),
    [
        (0.1, 0.2, True, False, True),
        (-0.2, -0.1, False, True, True),
        (-0.1, 0.1, None, None, True),
        (0.9, 1.1, True, False, None),
        (1.1, 1.2, True, False, False),
        (np.nan, np.nan, None, None, None),
    ],
)
def test_an_interval_decides_or_does_not(low, high, above, below, within):
    estimate = Estimate((low + high) / 2, low, high)
    assert decisions.above(estimate) is above
    assert decisions.below(estimate) is below
    assert decisions.within(estimate, -1, 1) is within


def test_decisions_are_joined_by_the_worst():
    assert decisions.every([True, np.True_]) is True
    assert decisions.every([True, None]) is None
    assert decisions.every([True, None, np.False_]) is False


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([1.0, 1.1, 0.9], "supported"),
        ([-1.0, -1.1, -0.9], "not supported"),
        ([1.0, -1.1, 0.9], "inconclusive"),
        ([1.0], "inconclusive"),
    ],
)
def test_a_mean_is_positive_by_its_interval(values, verdict):
    claim = decisions.positive("more", "It is more.", "gain", values, unit="steps", over="runs")
    (gain,) = claim.measured
    assert claim.verdict == verdict and "over runs" in claim.criterion
    assert gain.value == pytest.approx(np.mean(values), rel=1e-3) and gain.unit == "steps"
    assert ("single" in claim.reason) is (len(values) == 1)


def test_rows_differ_where_a_paired_difference_does():
    noise = np.array([-1.0, 0.0, 1.0])
    assert decisions.differ(np.stack([noise, noise + 0.1, noise])) is True
    assert decisions.differ(np.stack([noise, -noise])) is None
    assert decisions.differ(np.zeros((2, 1))) is None


def test_linearity_is_one_on_a_line_and_skips_what_is_cut():
    lag = np.arange(10.0)
    cut = np.where(lag < 5, -2 * lag, -np.inf)
    assert rates.linearity([-0.3 * lag, cut]) == pytest.approx([1, 1])
    assert rates.linearity((lag - 4.5) ** 2) == pytest.approx(0)
    assert np.isnan(rates.linearity(np.where(lag < 2, lag, -np.inf)))


def test_papers_find_the_same_modules():
    papers = Path(__file__).parents[1] / "experiments" / "papers"
    code = "import sys; sys.path[:0] = [{!r}]; from _kit import fields, runs; print(runs.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code.format(str(papers))], capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()) == papers.parent / "_kit" / "runs.py"


def test_a_gain_goes_into_the_initialiser():
    make = cells.factory("rnn", init="normal(radius=0.5)", gain=None)
    W = make(2, 4).init(jax.random.key(0))["W_h"]
    assert abs(np.linalg.eigvals(W)).max() == pytest.approx(0.5)
    W = cells.factory("rnn", gain=2.0)(2, 4).init(jax.random.key(0))["W_h"]
    np.testing.assert_allclose(W @ W.T, 4 * np.eye(4), atol=1e-12)


def test_every_shared_field_says_what_it_is():
    config = type(CONFIG)
    for field in dataclasses.fields(config):
        assert field.metadata["help"].endswith("."), field.name
    assert isinstance(CONFIG, study.Config) and curves.LAG


def test_the_runs_of_a_training_are_split_by_setting_and_seed():
    trained = load("clipping").trained
    values = np.arange(2 * 6 * 3).reshape(2, 6, 3)  # time, run (2 settings, 3 seeds), rest
    found = trained.by_setting(values, [2, 3])
    assert found.shape == (2, 3, 2, 3)
    np.testing.assert_array_equal(found[1, 2, 0], values[0, 5])
    losses = np.array([[3.0, 2.0, np.nan], [1.0, np.inf, 0.5], [np.nan, np.nan, np.nan]])
    np.testing.assert_array_equal(trained.last_finite(losses), [2.0, 0.5, np.nan])
