"""Chrono on the copy task: its law and baseline in closed form, and verdicts on known losses."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tallec2018_copy as paper
import xarray
from _training import all_below
from tallec2018 import lstm

from gradflow import study
from gradflow.tasks import resolve_task


@pytest.fixture
def dataset(quick_run):
    return quick_run("tallec2018_copy")


def test_the_baseline_is_the_loss_of_blanks_and_then_uniform_symbols():
    """The mean cross entropy of the best answer that remembers nothing, term by term."""
    task = resolve_task("copy(lag=30)")
    batch = task.sample(jax.random.key(0), 4)
    loss = 0.0
    for t in range(50):
        for b in range(4):
            target = int(batch.targets[t, b])
            probability = (target == 8) if t < 40 else (target < 8) / 8
            loss -= np.log(probability) / (50 * 4)
    np.testing.assert_allclose(paper.copy(30, 10).baseline, loss, rtol=1e-12)
    np.testing.assert_allclose(paper.copy(500, 10).baseline, 10 * np.log(8) / 520)


def test_chrono_s_forget_biases_follow_its_law():
    params = lstm("chrono", 150, 400, 10).init(jax.random.key(0))
    remembered = np.exp(params["f"]["b"])
    assert remembered.min() > 1 and 140 < remembered.max() < 149
    np.testing.assert_allclose(remembered.mean(), 75, rtol=0.1)
    np.testing.assert_array_equal(params["i"]["b"], -params["f"]["b"])
    assert params["f"]["W_x"].shape == (400, 10)
    standard = lstm("standard", 150, 4, 10).init(jax.random.key(0))
    np.testing.assert_array_equal(standard["f"]["b"], np.ones(4))
    np.testing.assert_array_equal(standard["i"]["b"], np.zeros(4))


def test_the_others_are_trained_where_chrono_does_not_reach_the_bound_too(dataset):
    assert dataset.loss.dims == ("length", "init", "seed", "update")
    assert list(dataset.init) == ["standard", "chrono"]
    assert np.isfinite(dataset.loss).all()
    baseline = dataset.baseline.item()
    np.testing.assert_allclose(baseline, 2 * np.log(8) / 7)
    with study.figure.style():
        (ax,) = paper.figure(dataset).axes
    drawn = {tuple(np.unique(one.get_ydata())) for one in ax.lines}
    assert (baseline,) in drawn
    shown = [text.get_text() for text in ax.get_legend().texts]
    assert len(shown) == 3 and shown[1:] == ["chrono", "memoryless"]


def known(standard, chrono, length=100, num_recalled=10):
    """Losses as fractions of the baseline, the same for three seeds."""
    baseline = paper.copy(length, num_recalled).baseline
    loss = np.array([standard, chrono])[:, None] * baseline * np.ones((1, 3, 1))
    return xarray.Dataset(
        {
            "loss": (("length", "init", "seed", "update"), loss[None]),
            "baseline": ("length", [baseline]),
            "mean_memory": 75.0,
            "num_recalled": num_recalled,
        },
        coords={
            "length": [length],
            "init": ["standard", "chrono"],
            "update": np.arange(len(chrono)) * 250,
        },
    )


@pytest.mark.parametrize(
    ("standard", "chrono", "length", "verdict"),
    [
        ([1, 1, 0.99], [1, 0.8, 0.4], 100, "qualitatively reproduced"),
        ([1, 1, 0.99], [1, 0.8, 0.4], 500, "reproduced"),
        ([1, 1, 0.85], [1, 0.8, 0.4], 100, "not reproduced"),  # the others are below it as well
        ([1, 0.95, 0.6], [1, 0.4, 0.4], 100, "qualitatively reproduced"),  # later does not count
        ([1, 1, 1], [1, 0.8, 0.6], 100, "not reproduced"),
    ],
)
def test_the_verdict_follows_the_criterion(standard, chrono, length, verdict):
    claim = paper.claims(known(standard, chrono, length))[-1]
    assert claim.id == f"fig1-copy{length}" and claim.verdict == verdict


def test_a_claim_reports_what_was_measured():
    fewer = paper.claims(known([1, 1, 1], [1, 0.8, 0.4], 500, num_recalled=5))[-1]
    assert (
        fewer.verdict == "qualitatively reproduced" and "here 5 symbols" in fewer.reference.source
    )
    reached = paper.claims(known([1, 1, 0.97], [1, 0.8, 0.4]))[-1]
    assert [number.value for number in reached.measured] == [500, 0.97, 0.4, 0.97]
    short = paper.claims(known([1, 1, 1], [1, 0.8, 0.6]))[-1]
    np.testing.assert_equal([number.value for number in short.measured], [np.inf, np.nan, 0.6, 1])


def test_chrono_trains_first_and_the_others_for_as_many_updates(monkeypatch):
    """Chrono's second seed is below half of the baseline at update 30, where the others stop."""
    losses = {"chrono": [[9, 0.4, 9, 9, 9], [9, 9, 9, 0.4, 9]], "standard": [[9] * 5, [9] * 5]}
    went = []

    class At(NamedTuple):
        update: int
        metrics: dict

    def train(config, init, length, folder, *, enough):
        baseline = paper.copy(length, config.num_recalled).baseline
        loss, all_of_it = np.full((2, 5), np.nan), np.array(losses[init]) * baseline
        for at in range(5):
            loss[:, at] = all_of_it[:, at]
            if enough(At(10 * at, {"loss": loss.T})):
                break
        went.append((init, 10 * at))
        coords = {"update": 10 * np.arange(5)}
        return xarray.Dataset({"loss": (("seed", "update"), loss)}, coords=coords)

    monkeypatch.setattr(paper, "train", train)
    found = paper.run(paper.EXPERIMENT.resolve({}, quick=True))
    assert went == [("chrono", 30), ("standard", 30)]
    assert list(found.init) == ["standard", "chrono"]
    assert found.loss.sel(init="chrono", seed=1, update=30).item() < found.baseline.item() / 2


def test_training_ends_when_every_run_has_been_below_the_bound():
    class At:
        metrics = {"loss": jnp.array([[0.9, 0.4], [0.3, 0.9], [0.9, 0.9]])}

    assert all_below(0.5, At()) and not all_below(0.35, At())
