"""The study of depth: its record, its numbers again by the library and by hand, its verdict."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from studies import load, one_run, verdicts

from gradflow import flow, study, unroll
from gradflow.cells import lstm
from gradflow.cells.stack import stack

MODULE = load("depth")
EXPERIMENT = MODULE.EXPERIMENT
FLAGS = [
    "--quick",
    "--cell=lstm",
    "--hidden_size=3",
    "--num_seeds=2",
    "--num_steps=8",
    "--lags=1,8",
]


CONFIG = EXPERIMENT.resolve(
    {"cell": "lstm", "hidden_size": 3, "num_seeds": 2, "num_steps": 8, "lags": (1, 8)}, quick=True
)


def test_the_blocks_are_those_that_log_norms_measures(dataset):
    cell = stack([lstm(16, 3), lstm(3, 3), lstm(3, 3)], skip="residual")
    blocks: Any = {"source": "0.h", "target": "2.h", "norm": "frobenius"}
    expected = flow.log_norms(cell, *one_run(CONFIG, cell, 1), **blocks)
    found = dataset.log_norm.sel(skip="residual", run=1, target=3, source=1)
    np.testing.assert_allclose(found, expected, atol=1e-10)
    assert bool(np.isneginf(dataset.log_norm.sel(target=1, source=2)).all())


def test_each_direction_hears_its_own_side_alone(dataset):
    cell = lstm(16, 3)
    _, x = one_run(CONFIG, cell, 0)
    runs = MODULE.runs
    backwards = cell.init(runs.cell_key(runs.stream(runs.keys(CONFIG)[0], 0)))
    middle = 4

    def output(x_k):
        changed = x.at[middle + 2].set(x_k)  # read 6 - 5 = 2 steps before the output, backwards
        return unroll(cell, backwards, changed[::-1]).outputs[8 - 1 - middle]

    expected = jnp.log(jnp.linalg.norm(jax.jacfwd(output)(x[middle + 2])))
    heard = dataset.log_norm_of_input.isel(run=0)
    np.testing.assert_allclose(heard.sel(direction="backwards", offset=2), expected, atol=1e-10)
    for direction, sign in (("forwards", -1), ("backwards", 1)):
        finite = np.isfinite(heard.sel(direction=direction)).values
        np.testing.assert_array_equal(finite, sign * heard.offset.values >= 0)


def with_rates(dataset, none, residual):
    """The record with norms from the lowest layer that change by so much a layer."""
    slopes = np.array([none, residual, 0.0])[:, None, None, None] + 0 * dataset.log_norm[..., 0]
    return dataset.assign(
        log_norm=dataset.log_norm * 0 + (slopes * dataset.target).values[..., None]
    )


def test_the_claims_are_decided_by_the_rates(dataset):
    def of(none, residual):
        record = with_rates(dataset.fillna(0), none, residual)
        return record, list(verdicts(EXPERIMENT.claims(record)).values())

    record, found = of(-0.5, 0.1)
    assert found == ["supported"] * 4
    assert "0.607 [0.607, 0.607]" in EXPERIMENT.summary(record)
    assert of(0.1, 0.2)[1] == ["not supported", "supported"] * 2
    assert of(-0.5, -0.4)[1] == ["supported", "not supported"] * 2
    assert of(0.0, 0.0)[1] == ["inconclusive"] * 4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lags": (30,)}, r"Expected lags up to num_steps=12, got lags=\(30,\)"),
        ({"num_layers": 2}, "Expected at least 3 layers, which a rate per layer needs, got 2"),
    ],
)
def test_what_cannot_be_measured_is_said(given, message):
    with pytest.raises(ValueError, match=message):
        EXPERIMENT.run(EXPERIMENT.resolve(given, quick=True), study.call)
