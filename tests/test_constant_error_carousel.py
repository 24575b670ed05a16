"""The constant error carousel: its record is the library's, and says where the formula fails."""

import numpy as np
from studies import load, one_run, verdicts

from gradflow import flow, study
from gradflow.cells import lstm

carousel = load("constant_error_carousel")
EXPERIMENT, FLAGS = carousel.EXPERIMENT, ["--quick", "--hidden_size=4", "--num_steps=8"]


def test_the_record_holds_what_the_library_measures(dataset):
    cell = lstm(16, 4, peephole=True)
    config = EXPERIMENT.resolve({"hidden_size": 4, "num_steps": 8}, quick=True)
    params, inputs = one_run(config, cell, 1)
    norms = flow.decomposition_norms(cell, params, inputs)
    data = dataset.sel(cell="lstm(peephole=True)").isel(run=1)
    for curve in ("product_forget", "product_total", "exact_total"):
        expected = getattr(norms, curve)
        np.testing.assert_allclose(data.log_norm.sel(curve=curve), expected, atol=1e-9)
    for term in ("forget", "through_f", "through_i", "through_g", "total"):
        expected = getattr(norms, term)
        np.testing.assert_allclose(data.log_norm_of_term.sel(term=term), expected, atol=1e-9)
    np.testing.assert_allclose(data.steps_by_path.sum("path"), np.arange(9), atol=1e-9)
    gates = flow.gates(cell, params, inputs)
    np.testing.assert_allclose(data.mean_forget_gate, gates["f"].mean(), atol=1e-12)


def test_it_says_where_the_formula_goes_wrong_and_by_how_much(dataset):
    curves = dataset.log_norm
    log_factor = curves.sel(curve="product_forget") - curves.sel(curve="exact_total")
    np.testing.assert_allclose(dataset.one_line_error, log_factor, atol=1e-12)
    median = np.median(dataset.one_line_error.values, axis=1)
    np.testing.assert_allclose(dataset.error_at_last_lag, median[:, -1], atol=1e-12)
    for at, row in zip(dataset.wrong_from_lag.values, np.abs(median), strict=True):
        wrong = np.flatnonzero(row > np.log(2))
        assert at == (wrong[0] if len(wrong) else np.inf)
    summary = carousel.summary(dataset)
    assert f"{median[0, -1] / np.log(10):+.1f}" in summary
    assert "furthest off for lstm" in summary


def test_another_cell_is_refused_before_anything_is_measured(capsys, tmp_path):
    for spec, message in (
        ("gru", "carry with fields h and c"),
        ("", "Expected the name of a cell"),
    ):
        flags = [*FLAGS, f"--cell={spec}", f"--workdir={tmp_path / 'out'}"]
        assert study.main(EXPERIMENT, flags) == 1
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


def test_the_claim_is_decided_by_the_growth_of_the_error(dataset):
    noise = 1 + 0.01 * (dataset.run - 1)
    for sign, verdict in ((-1, "supported"), (1, "not supported"), (0, "inconclusive")):
        error = 0 * dataset.one_line_error + (0.1 * sign * noise + 0.01 * (dataset.run - 1)) * (
            dataset.lag
        )
        found = carousel.claims(dataset.assign(one_line_error=error))
        assert verdicts(found) == {"one-line-error-grows": verdict}
