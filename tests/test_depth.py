"""The study of depth: its record, its numbers again by the library and by hand, its verdict."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from studies import load

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


def given():
    """The keys and the inputs of the run."""
    k_params, k_inputs = (jax.random.fold_in(jax.random.key(0), i) for i in range(2))
    return jax.random.split(k_params, 2), jax.random.normal(k_inputs, (2, 8, 16))


def test_the_same_command_gives_the_same_bits(folders):
    one, two = ((folder / "result.nc").read_bytes() for folder in folders)
    assert one == two
    assert (folders[0] / "figure.png").stat().st_size > 10_000


def test_the_blocks_are_those_that_log_norms_measures(dataset):
    keys, inputs = given()
    cell = stack([lstm(16, 3), lstm(3, 3), lstm(3, 3)], skip="residual")
    blocks: Any = {"source": "0.h", "target": "2.h", "norm": "frobenius"}
    expected = flow.log_norms(cell, cell.init(keys[1]), inputs[1], **blocks)
    found = dataset.log_norm.sel(skip="residual", run=1, target=3, source=1)
    np.testing.assert_allclose(found, expected, atol=1e-10)
    assert bool(np.isneginf(dataset.log_norm.sel(target=1, source=2)).all())


def test_each_direction_hears_its_own_side_alone(dataset):
    keys, inputs = given()
    cell, x = lstm(16, 3), inputs[0]
    _, backwards = (cell.init(k) for k in jax.random.split(keys[0]))
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


def test_the_verdict_is_read_from_the_numbers(dataset):
    summary = EXPERIMENT.summary(with_rates(dataset.fillna(0), -0.5, 0.1))
    assert "0.607 [0.607, 0.607]" in summary and summary.count("claim is supported") == 2
    for none, residual in ((0.1, 0.2), (-0.5, -0.4)):
        summary = EXPERIMENT.summary(with_rates(dataset.fillna(0), none, residual))
        assert summary.count("claim is not supported") == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lags": (30,)}, r"lags up to num_steps=12 are expected, got lags=\(30,\)"),
        ({"num_layers": 2}, "num_layers of at least 3, for a rate per layer, is expected, got 2"),
    ],
)
def test_what_cannot_be_measured_is_said(given, message):
    with pytest.raises(ValueError, match=message):
        EXPERIMENT.run(EXPERIMENT.resolve(given, quick=True), study.call)
