"""The study of the frameworks' initial laws: what it measures, draws and says."""

import dataclasses
from functools import partial

import jax
import numpy as np
import pytest
from studies import load, one_run, verdicts

from gradflow import flow
from gradflow.cells import gru_reset_before, lstm
from gradflow.presets import with_preset


@pytest.fixture(scope="module")
def module():
    return load("framework_presets")


@pytest.fixture(scope="module")
def quick(module):
    return dataclasses.replace(module.Config(), **module.EXPERIMENT.quick)


@pytest.fixture(scope="module")
def dataset(module, quick):
    config = dataclasses.replace(quick, cells=("lstm", "gru", "rnn"))
    config = dataclasses.replace(config, presets=("flax_linen", "haiku", "equinox"))
    return module.run(config)


@pytest.mark.parametrize(
    "cell, preset, factory", [("lstm", "flax_linen", lstm), ("gru", "haiku", gru_reset_before)]
)
def test_each_curve_is_the_norm_of_that_net(dataset, quick, cell, preset, factory):
    net = with_preset(factory(quick.input_size, quick.hidden_size), preset)
    expected = jax.jit(partial(flow.log_norms, net))(*one_run(quick, net, 1))
    measured = dataset.log_norm.sel(cell=cell, preset=preset).isel(run=1)
    np.testing.assert_allclose(measured, expected, rtol=1e-6, atol=1e-9)


def test_a_framework_without_the_cell_is_a_gap(module, dataset):
    missing = dataset.log_norm.isnull().all(["run", "lag"])
    assert bool(missing.sel(cell="rnn", preset="equinox")) and int(missing.sum()) == 1
    row = next(r for r in module.summary(dataset).splitlines() if r.strip().startswith("equinox"))
    assert row.split()[-1] == "-" or "-" in row.split()


def test_a_preset_does_not_depend_on_the_others_and_the_figure_draws(module, quick, dataset):
    one = dataclasses.replace(quick, cells=("lstm",), presets=("flax_linen",))
    again = module.run(one).log_norm.sel(cell="lstm", preset="flax_linen")
    np.testing.assert_array_equal(again, dataset.log_norm.sel(cell="lstm", preset="flax_linen"))
    panels = module.figure(dataset).axes
    titles = [ax.get_title() for ax in panels]
    assert titles == ["lstm", "gru", "rnn"]
    assert len(panels[titles.index("rnn")].lines) == 2
    assert len(panels[titles.index("lstm")].lines) == 3


def test_fused_orthogonal_blocks_lose_the_gradient_that_separate_ones_keep(module, quick):
    config = dataclasses.replace(
        quick, presets=("flax_linen", "flax_nnx"), cells=("lstm",), hidden_size=24, num_steps=50
    )
    last = module.run(config).log_norm.isel(lag=-1, cell=0).median("run")
    separate, fused = (float(last.sel(preset=p)) for p in config.presets)
    assert separate - fused > np.log(10)  # more than one decade by lag 50


def test_the_claim_is_decided_by_the_two_frameworks_furthest_apart(module, dataset):
    assert set(verdicts(module.claims(dataset)).values()) == {"not supported"}  # of 8 units
    ends = {"flax_linen": 0.0, "haiku": -12.0, "equinox": -5.0}
    last = (
        np.array(list(ends.values()))[:, None, None] * np.log(10) + 0 * dataset.log_norm[0].values
    )
    apart = dataset.isel(cell=[0]).assign(log_norm=(dataset.log_norm.dims, last[None]))
    (claim,) = module.claims(apart)
    assert (claim.id, claim.verdict) == ("apart-lstm", "supported")
    assert claim.measured[0].name == "log10 norm, flax_linen over haiku"
    assert claim.measured[0].value == 12


@pytest.mark.parametrize(
    "change, message",
    [
        ({"presets": ("pytorch",)}, r"Unknown preset 'pytorch'. Did you mean 'torch'\?"),
        (
            {"presets": ("equinox",), "cells": ("rnn",)},
            r"one of the cells \('rnn',\), got \('equinox'",
        ),
        ({"cells": ("lsmt",)}, r"Unknown cell of a framework 'lsmt'. Did you mean 'lstm'\?"),
    ],
)
def test_an_unknown_preset_or_cell_is_refused(module, quick, change, message):
    with pytest.raises(ValueError, match=message):
        module.run(dataclasses.replace(quick, **change))
