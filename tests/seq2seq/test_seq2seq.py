"""The encoder-decoder study: its record, its probes at both ends, and its claims."""

import numpy as np
import pytest
import xarray
from studies import load_part, verdicts

from gradflow import study
from gradflow.interop import read_description

MODULE, RESULTS = load_part("seq2seq.study"), load_part("seq2seq.results")
EXPERIMENT = MODULE.EXPERIMENT
FLAGS = [
    "--quick",
    "--cells=rnn",
    "--task=reversal",
    "--length=3",
    "--num_updates=3",
    "--probe=adjoints,gates",
]


def test_a_run_draws_its_figure(folder):
    assert (folder / "figure.png").stat().st_size > 10_000
    for name in ("encoder", "decoder"):
        assert read_description(folder / "params" / f"rnn_{name}.safetensors").cell == "rnn"


def test_the_learning_rate_is_chosen_on_other_seeds(dataset):
    assert dataset.validation_loss.dims == ("cell", "tried_rate", "validation_seed")
    losses = dataset.validation_loss.isel(cell=0)
    assert np.isfinite(losses).all() and len(np.unique(losses)) == losses.size == 2
    best = float(losses.median("validation_seed").idxmin("tried_rate"))
    assert dataset.learning_rate.values == [best]
    assert "of 0.003, 0.03, the one with" in EXPERIMENT.summary(dataset)


def test_the_record_has_what_was_trained(dataset):
    assert dict(dataset.log_adjoint.sizes) == {
        "cell": 1, "stage": 2, "seed": 3, "sequence": 2, "step": 7
    }  # fmt: skip
    change = dataset.log_adjoint.sel(stage="trained") - dataset.log_adjoint.sel(
        stage="initialisation"
    )
    assert bool((abs(change) > 1e-5).all())
    assert [text[::-1] for text in dataset.source.values[0]] == list(dataset.target.values[0])
    right = dataset.free.isel(update=-1)
    assert bool((dataset.sequences.isel(update=-1) <= right).all()) and bool((right < 1).all())


def test_probes_agree_with_the_flow_before_and_after_training(dataset):
    assert dataset.adjoints.dims == ("cell", "seed", "probe_update", "lag")
    assert dataset.probe_update.values.tolist() == [0, 1, 2, 3] and "gates" not in dataset
    in_encoder = dataset.log_adjoint.sel(step=slice(None, 0)).median("sequence")
    for stage, update in (("initialisation", 0), ("trained", 3)):
        expected = in_encoder.sel(stage=stage).values[..., ::-1]
        found = dataset.adjoints.sel(probe_update=update)
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_the_claims_are_decided_by_the_numbers(dataset):
    def claims(gain, cost, lift):
        first = dataset.assign(log_adjoint=dataset.log_adjoint * 0, forced=dataset.free + cost)
        first.log_adjoint.loc[{"stage": "trained", "step": -2}] = lift
        first = first.assign(sequences=dataset.sequences * 0 + 0.5)
        second = first.assign(sequences=first.sequences + gain).assign_coords(cell=["lstm"])
        return EXPERIMENT.claims(xarray.concat([first, second], dim="cell"))

    names = ["more-sequences-lstm"]
    names += [f"{what}-{c}" for what in ("free-running-costs", "training-lifts")
              for c in ("rnn", "lstm")]  # fmt: skip
    found = claims(0.1, 0.1, np.log(10))
    assert verdicts(found) == dict.fromkeys(names, "supported")
    assert [claim.measured[0].value for claim in found] == [0.1, 0.1, 0.1, 1, 1]
    assert verdicts(claims(-0.1, -0.1, -1)) == dict.fromkeys(names, "not supported")
    assert verdicts(claims(0, 0, 0)) == dict.fromkeys(names, "inconclusive")
    spread = xarray.DataArray([0.3, -0.2, 0.1], dims="seed")
    assert verdicts(claims(spread, spread, 1)) == {
        **dict.fromkeys(names[:3], "inconclusive"),
        **dict.fromkeys(names[3:], "supported"),
    }
    assert list(verdicts(EXPERIMENT.claims(dataset))) == [n for n in names if n.endswith("rnn")]


def test_the_long_form_has_its_sizes(monkeypatch):
    seen = []

    def net(spec, config, data):
        seen.append((config, data))
        raise KeyboardInterrupt

    monkeypatch.setattr(MODULE, "_net", net)
    with pytest.raises(KeyboardInterrupt):
        EXPERIMENT.run(EXPERIMENT.resolve({"task": "reversal"}, full=True), study.call)
    ((config, data),) = seen
    assert config.hidden_size == EXPERIMENT.full["hidden_size"]
    assert data.train.sources.shape[1] == 30


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cells": ""}, "Expected the name of a cell, got ''"),
        ({"cells": "lsmt"}, "Unknown cell 'lsmt'"),
        ({"task": "dates", "num_formats": 4}, "Expected 1 to 3 formats, got 4"),
        ({"num_updates": 7}, "Expected num_updates to be a multiple of num_evaluations=3"),
        ({"probe": "gates", "cells": "rnn"}, "The probe 'gates' needs a cell with gates"),
        ({"probe_every": 3}, "Expected probe_every to be a positive multiple of eval_every=2"),
    ],
)
def test_bad_input_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        EXPERIMENT.run(EXPERIMENT.resolve(given, quick=True), study.call)


@pytest.mark.slow  # a net of the default size is trained: less than a minute
def test_the_lstm_learns_to_write_the_dates_that_are_held_out():
    given = {"cells": "lstm", "num_updates": 900, "num_evaluations": 3, "num_seeds": 2}
    given |= {"task": "dates", "learning_rates": (0.01,), "num_validation": 1}
    config = EXPERIMENT.resolve(given)
    with study.precision(config):
        dataset = EXPERIMENT.run(config, study.call)
    assert float(dataset.sequences.isel(update=-1).min()) >= 0.98
    reaching = RESULTS.reaching(dataset)
    assert bool((reaching.sel(stage="trained") > reaching.sel(stage="initialisation")).all())
