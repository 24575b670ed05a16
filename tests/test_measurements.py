"""The page of all measurements: its record is the library's, and its figure draws."""

import numpy as np
import pytest
from studies import load, one_run, verdicts

from gradflow import flow
from gradflow.cells import lstm

page = load("measurements")
EXPERIMENT = page.EXPERIMENT


def test_a_run_draws_its_figure(folder):
    assert (folder / "figure.png").stat().st_size > 10_000


def test_the_record_holds_what_the_library_measures(dataset):
    cell = lstm(3, 4)
    params, inputs = one_run(EXPERIMENT.resolve({}, quick=True), cell, 1)
    data = dataset.isel(run=1)
    log_norms = flow.log_norms(cell, params, inputs)
    np.testing.assert_allclose(data.log_norm, log_norms, atol=1e-9)
    np.testing.assert_allclose(data.log_norm_map[-1], log_norms[::-1], atol=1e-9)
    np.testing.assert_allclose(data.log_singular_value[:, 0], log_norms, atol=1e-9)
    gates = flow.gates(cell, params, inputs)
    for name, activations in gates.items():
        np.testing.assert_allclose(data.gate.sel(gate_name=name), activations.mean(1), atol=1e-12)
    shares = flow.component_gradients(page.last_loss, cell, params, inputs)
    W_h = np.stack([np.asarray(gate["W_h"]) for gate in shares.values()])  # (gate, T, ...)
    expected = 0.5 * np.log((W_h**2).sum(axis=(0, 2, 3))[1:])  # at the first step h_0 = 0
    np.testing.assert_allclose(data.log_component.sel(parameter="W_h")[1:], expected, atol=1e-9)


def test_the_summary_and_the_claim_have_a_factor_for_each(dataset):
    factor = np.exp(flow.summary(dataset.log_norm.values).rate)
    assert page.summary(dataset).count(f"{factor:.4f}") == 2  # of the norm: the largest value
    (claim,) = page.claims(dataset)
    assert claim.measured[0].value == pytest.approx(factor, rel=1e-3)
    same = dataset.assign(
        exponent=0 * dataset.exponent - 0.1,
        log_norm=0 * dataset.log_norm - 0.1 * dataset.lag,
        log_singular_value=0 * dataset.log_singular_value.fillna(0) - 0.1 * dataset.lag,
        log_adjoint_norm=0 * dataset.log_adjoint_norm + 0.1 * dataset.earlier,
    )
    assert verdicts(page.claims(same)) == {"one-factor": "supported"}
    other = same.assign(exponent=same.exponent - 0.1)
    assert verdicts(page.claims(other)) == {"one-factor": "not supported"}


def test_a_cell_without_gates_has_no_panels_of_gates(dataset):
    drawn = page.EXPERIMENT.draw(dataset.drop_vars(["gate", "saturation", "gate_name"]))
    assert [ax.texts[0].get_text() for ax in drawn.axes[7:9]] == ["the cell has no gates"] * 2
