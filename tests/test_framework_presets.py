"""The study of the frameworks' initial laws: what it measures, draws and says."""

import dataclasses
import importlib.util
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from gradflow import flow
from gradflow.cells import gru_reset_before, lstm
from gradflow.presets import with_preset

PATH = Path(__file__).parents[1] / "experiments" / "framework_presets.py"


@pytest.fixture(scope="module")
def module():
    spec = importlib.util.spec_from_file_location("framework_presets", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
    k_params, k_inputs = jax.random.split(jax.random.key(quick.seed))
    keys = jax.random.split(k_params, quick.num_seeds)
    x = jax.random.normal(k_inputs, (quick.num_seeds, quick.num_steps, quick.input_size))
    expected = jax.jit(partial(flow.log_norms, net))(net.init(keys[1]), x[1])
    measured = dataset.log_norm.sel(cell=cell, preset=preset).isel(run=1)
    np.testing.assert_allclose(measured, expected, rtol=1e-6, atol=1e-9)


def test_a_framework_without_the_cell_is_a_gap(module, dataset):
    missing = dataset.log_norm.isnull().all(["run", "lag"])
    assert bool(missing.sel(cell="rnn", preset="equinox")) and int(missing.sum()) == 1
    row = next(r for r in module.summary(dataset).splitlines() if r.strip().startswith("equinox"))
    assert row.split()[-1] == "-" or "-" in row.split()


def test_a_run_again_has_the_same_bits_and_its_figure_draws(module, quick, dataset):
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


@pytest.mark.parametrize(
    "change, message",
    [
        ({"presets": ("pytorch",)}, r"unknown preset 'pytorch': did you mean 'torch'\?"),
        (
            {"presets": ("equinox",), "cells": ("rnn",)},
            r"one of the cells \('rnn',\) .* \('equinox'",
        ),
        ({"cells": ("lsmt",)}, r"unknown cell of a framework 'lsmt': did you mean 'lstm'\?"),
    ],
)
def test_an_unknown_preset_or_cell_is_refused(module, quick, change, message):
    with pytest.raises(ValueError, match=message):
        module.run(dataclasses.replace(quick, **change))
