"""The study of gates: its record against the library and closed forms, and its verdicts."""

import math

import jax
import numpy as np
import pytest
import xarray
from studies import load, one_run, verdicts

from gradflow import flow
from gradflow.cells import lstm

gates = load("gates")
EXPERIMENT = gates.EXPERIMENT


def quick(**given):
    return EXPERIMENT.resolve(given, quick=True)


@pytest.fixture(scope="module")
def last_run():
    """The key of the parameters of the last run, and its inputs."""
    key = gates.runs.cell_key(gates.runs.keys(quick())[-1])
    params, inputs = one_run(quick(), lstm(16, 6), quick().num_seeds - 1)
    jax.tree.map(np.testing.assert_array_equal, params, lstm(16, 6).init(key))
    return key, inputs


def end_by_start(cell, params, x):
    """∂s_T/∂s_0 by automatic differentiation of the whole run, [h, c] by [h, c]."""

    def end(carry):
        return jax.lax.scan(lambda s, x: cell.step(params, s, x), carry, x)[0]

    return jax.jit(jax.jacobian(end))(cell.initial_carry())


def test_the_norm_at_a_bias_is_that_of_a_cell_with_it(dataset, last_run):
    key, x = last_run
    cell = lstm(16, 6, forget_bias=4.0)
    jacobian = end_by_start(cell, cell.init(key), x).c.c
    found = dataset.log_norm.sel(setting="4", lag=20)[-1]
    np.testing.assert_allclose(found, np.log(np.linalg.norm(jacobian, 2)), atol=1e-6)


def test_chrono_sets_opposite_biases_within_the_longest_lag(last_run):
    params = gates.init_settings(quick(chrono=(20, 1000), biases=(0.5,)), last_run[0])
    b_f, b_i = np.asarray(params["f"]["b"]), np.asarray(params["i"]["b"])
    np.testing.assert_array_equal(b_f[0], 0.5)
    np.testing.assert_array_equal(b_i[0], 0)
    np.testing.assert_array_equal(b_i[1:], -b_f[1:])
    chrono = lstm(16, 6, forget_bias="chrono(max_lag=20)").init(last_run[0])
    np.testing.assert_array_equal(b_f[1], chrono["f"]["b"])
    memories = np.exp(b_f[1:]) + 1
    assert (memories >= 2).all() and (memories[0] <= 20).all() and memories[1].max() > 20
    cell = lstm(16, 6)
    np.testing.assert_array_equal(params["o"]["W_h"][1], cell.init(last_run[0])["o"]["W_h"])


def test_histograms_count_the_forget_gate_of_every_run(dataset, last_run):
    np.testing.assert_allclose(dataset.fraction.sum("activation"), 1, atol=1e-12)
    # By the means of its bins a histogram gives the mean activation, to half a bin.
    by_bins = (dataset.fraction * dataset.activation).sum("activation").mean("step")
    assert np.abs(by_bins - dataset.mean_f.mean("run")).max() < 0.05
    key, x = last_run
    cell = lstm(16, 6, forget_bias=2.0)
    f = flow.gates(cell, cell.init(key), x)["f"]
    np.testing.assert_allclose(dataset.mean_f.sel(setting="2")[-1], f.mean(), rtol=1e-9)


def test_the_terms_are_those_of_the_default_cell(dataset, last_run):
    key, x = last_run
    cell = lstm(16, 6)
    params = cell.init(key)
    f = np.asarray(flow.gates(cell, params, x)["f"])
    found = dataset.log_term.sel(term="forget")[-1]
    np.testing.assert_allclose(found, np.log(f.max(axis=1)), atol=1e-9)
    product = np.log(np.cumprod(f[::-1], axis=0).max(axis=1))
    np.testing.assert_allclose(
        dataset.log_product.sel(product="product_forget")[-1, 1:], product, atol=1e-9
    )
    exact = dataset.log_product.sel(product="exact_total", lag=1)[-1]
    np.testing.assert_allclose(
        exact, dataset.log_product.sel(product="product_total", lag=1)[-1], atol=1e-9
    )


def test_every_form_is_measured_as_what_it_is_called(dataset, last_run):
    assert list(dataset.form.values) == ["coupled", "no_forget_gate"]
    key, x = last_run
    for form, cell in (
        ("coupled", lstm(16, 6, coupled=True)),
        ("no_forget_gate", lstm(16, 6, forget_gate=False)),
    ):
        jacobian = end_by_start(cell, cell.init(key), x).h
        found = dataset.log_norm_h.sel(form=form, lag=20)[-1]
        np.testing.assert_allclose(found, np.log(np.linalg.norm(jacobian.h, 2)), atol=1e-6)


def test_the_decay_of_the_gate_alone():
    np.testing.assert_allclose(gates.log_forget([0.0, 3.0]), np.log(1 / (1 + np.exp([0.0, -3.0]))))


def record_of(rates):
    """A record whose norm decays by these rates at the biases 0, 1, 2 and 3, with some noise."""
    lag, noise = np.arange(101), 1 + 0.01 * np.arange(-2, 3)
    log_norm = np.asarray(rates)[:, None] * noise[:, None, None] * lag
    product = np.stack([-0.3 * noise[:, None] * lag, -0.2 * noise[:, None] * lag])
    return xarray.Dataset(
        {
            "log_norm": (("run", "setting", "lag"), log_norm),
            "log_norm_h": (("form", "run", "lag"), log_norm[:, 0][None]),
            "log_product": (("product", "run", "lag"), product),
            "mean_f": (("run", "setting"), np.full((5, 4), 0.5)),
            "bias": ("setting", [0.0, 1.0, 2.0, 3.0]),
        },
        coords={
            "setting": ["0", "1", "2", "3"],
            "lag": lag,
            "form": ["lstm"],
            "product": ["product_forget", "exact_total"],
        },
    )


def test_the_claims_are_decided_by_the_curves():
    alone = gates.log_forget([0.0, 1.0, 2.0, 3.0])
    found = EXPERIMENT.claims(record_of(alone))
    assert set(verdicts(found).values()) == {"supported"}
    assert found[1].measured[0].value == pytest.approx(1)
    found = EXPERIMENT.claims(record_of(alone * [0.5, 1, 1, 1]))
    assert list(verdicts(found).values()) == ["supported", "not supported"]
    assert found[1].measured[0].value == pytest.approx(0.5)
    found = EXPERIMENT.claims(record_of(alone[::-1]))
    assert list(verdicts(found).values()) == ["not supported", "not supported"]
    found = EXPERIMENT.claims(record_of(alone * [1.25, 1, 1, 1]))  # the bound within its interval
    assert list(verdicts(found).values()) == ["supported", "inconclusive"]


def test_the_summary_has_the_factor_and_the_error_of_the_formula():
    alone = gates.log_forget([0.0, 1.0, 2.0, 3.0])
    summary = EXPERIMENT.summary(record_of(alone))
    assert f"{math.exp(alone[1]):.4f}" in summary and "-4.3 [" in summary  # -0.1 · 100 / log 10


def test_biases_out_of_order_are_refused():
    with pytest.raises(ValueError, match=r"Expected biases in ascending order, got \(1.0, 0.0\)"):
        gates.run(quick(biases=(1.0, 0.0)))


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="Unknown form of a gated cell 'gruu'. Did you mean 'gru'"):
        gates.run(quick(forms=("gruu",)))
