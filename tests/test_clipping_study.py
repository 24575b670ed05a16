"""The study of clipping: its record against the library's training, its claims, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from studies import load

from gradflow import study
from gradflow.cells import rnn
from gradflow.tasks import resolve_task
from gradflow.train.clipping import resolve_clipping
from gradflow.train.driver import Schedule, fit
from gradflow.train.fresh import fresh_sequences
from gradflow.train.optimisers import resolve_optimiser
from gradflow.train.runs import begin
from gradflow.train.training import Training

MODULE = load("clipping")
EXPERIMENT = MODULE.EXPERIMENT
TASK = "adding(num_steps=6)"
FLAGS = ["--quick", f"--tasks={TASK}", "--optimiser=sgd"]
FLAGS += ["--learning_rates=0.3", "--cell=rnn", "--hidden_size=3"]


def test_there_is_a_setting_for_each_threshold(dataset):
    assert list(dataset.setting.values) == ["none", *(f"global_norm {t}" for t in ("0.3", 1, 3))]


def test_a_setting_is_the_training_with_that_clipping(dataset):
    with study.precision(EXPERIMENT.config()):
        training = Training(
            rnn(2, 3),
            resolve_task(TASK),
            resolve_optimiser("sgd"),
            resolve_clipping("global_norm(threshold=0.3)"),
            batch_size=8,
            eval_size=16,
        )
        keys = jax.random.split(jax.random.key(0), 3)
        runs = begin(training, keys, jnp.full(3, 0.3))
        *_, last = fit(fresh_sequences(training, runs), Schedule(20, 10))
    found = dataset.sel(task=TASK, setting="global_norm 0.3")
    for name in ("loss", "grad_norm", "clip_ratio"):
        expected = last.metrics[name].T
        np.testing.assert_allclose(found[name].transpose("seed", "update"), expected, rtol=1e-4)
    assert float(found.clip_share.max()) > 0
    none = dataset.sel(task=TASK, setting="none").isel(update=slice(1, None))
    assert (none.clip_share == 0).all()
    # The cosine of a float32 vector with itself is 1 but for the rounding of the norms.
    np.testing.assert_allclose(none.clip_cosine, 1, rtol=0, atol=1e-6)


def test_every_threshold_has_its_own_rate():
    given = {"tasks": TASK, "clippings": "none,normalise", "hidden_size": 3, "num_seeds": 1}
    config = EXPERIMENT.resolve(given | {"learning_rates": (0.1, 0.3)}, quick=True)
    with study.precision(config):
        data = EXPERIMENT.run(config, study.call).isel(task=0)
    tried = data.validation_loss
    assert tried.dims == ("setting", "tried_rate", "validation_seed") and tried.shape == (4, 2, 2)
    chosen = tried.fillna(np.inf).median("validation_seed").idxmin("tried_rate")
    np.testing.assert_array_equal(data.learning_rate, chosen)
    # A step of normalise is the rate times the threshold: equal products give equal losses.
    first, second = (
        tried.sel(setting=f"normalise {threshold}", tried_rate=rate)
        for threshold, rate in ((0.1, 0.3), (0.3, 0.1))
    )
    np.testing.assert_allclose(first, second, rtol=1e-4)
    gaps = np.diff(np.sort(tried.values.ravel()))
    assert np.count_nonzero(gaps > 1e-4 * tried.values.max()) == 13  # 14 different losses


def test_every_kind_has_thresholds_that_it_takes_from_tight_to_loose():
    for kind, levels in MODULE.THRESHOLDS.items():
        assert list(levels) == sorted(set(levels)) and len(levels) in (0, 3)
        if levels:
            assert MODULE.check_thresholds(kind, levels) == levels
    assert MODULE.level_of("agc 0.1") == "middle" and MODULE.level_of("none") is None


@pytest.mark.parametrize(
    "helped, factors, verdict",
    [
        ((1, 1, 1), (0.1, 0.08, 0.12), "supported"),
        ((1, 1, 1), (0.1, 0.01, 0.5), "inconclusive"),  # three such seeds decide nothing
        ((-1, -1, -1), (10, 9, 11), "not supported"),
    ],
)
def test_the_claim_is_decided_by_the_final_losses_of_each_seed(dataset, helped, factors, verdict):
    solved = dataset.solved_at.copy(data=np.full(dataset.solved_at.shape, np.nan))
    loss = dataset.loss.copy()
    loss.loc[{"setting": "none"}] = 0.5
    loss.loc[{"setting": "none", "seed": 2, "update": 20}] = np.nan  # a run that died
    for seed, (more, factor) in enumerate(zip(helped, factors, strict=True)):
        loss.loc[{"setting": "global_norm 1", "seed": seed}] = 0.5 * factor
        if more:
            solved.loc[{"seed": seed, "setting": "global_norm 1" if more > 0 else "none"}] = 10
    changed = dataset.assign(solved_at=solved, loss=loss)
    (claim,) = EXPERIMENT.claims(changed)
    assert (claim.id, claim.verdict) == ("clipping-helps-adding-num-steps-6", verdict)
    found = [number.value for number in claim.measured]
    np.testing.assert_allclose(found, [np.mean(np.log10(factors)), np.mean(helped)], rtol=1e-3)
    summary = EXPERIMENT.summary(changed)
    row = next(line for line in summary.splitlines() if "global_norm 1 " in line)
    number = str(sum(h > 0 for h in helped))
    assert row.split()[:7] == ["adding", "global_norm", "1", "0.3", number, "of", "3"]
    EXPERIMENT.draw(changed)
    alone = dataset.sel(setting=["none"])
    assert EXPERIMENT.claims(alone) == []
    EXPERIMENT.draw(alone)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"clippings": "none,agcc"}, "Unknown clipping of this study 'agcc'. Did you mean 'agc'"),
        (
            {"clippings": "agc"},
            "Expected none among --clippings, .* got agc. Add none.",
        ),
        ({"tasks": ","}, "Expected the name of a task, got ','. Try adding."),
        ({"num_updates": 15}, "num_updates to be a positive multiple of eval_every=10"),
    ],
)
def test_bad_input_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        EXPERIMENT.run(EXPERIMENT.resolve(given, quick=True), study.call)
