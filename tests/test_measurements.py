"""The page of all measurements: its record is the library's, and its figure draws."""

import jax
import numpy as np
import pytest
from studies import load, one_run, verdicts

from gradflow import flow, study
from gradflow.cells import lstm, rnn
from gradflow.interop import save_params
from gradflow.report import drawing

page = load("measurements")
EXPERIMENT = page.EXPERIMENT


def quick(**given):
    return EXPERIMENT.resolve(given, quick=True)


def test_a_run_draws_a_panel_for_each_measurement(dataset):
    titles = [ax.get_title() for ax in page.figure(dataset).axes if ax.get_title()]
    assert titles == [drawing.title_of(name) for name in quick().what]


def test_the_record_holds_what_the_library_measures(dataset):
    cell = lstm(3, 4)
    params, inputs = one_run(quick(), cell, 1)
    data = dataset.isel(run=1)
    log_norms = flow.log_norms(cell, params, inputs)
    np.testing.assert_allclose(data.log_norms, log_norms, atol=1e-9)
    np.testing.assert_allclose(data.log_norm_map[-1], log_norms[::-1], atol=1e-9)
    np.testing.assert_allclose(data.log_singular_values[:, 0], log_norms, atol=1e-9)
    for name, activations in flow.gates(cell, params, inputs).items():
        found = data.gates[:, data.gate_unit.values == name]
        np.testing.assert_allclose(found, activations, atol=1e-12)
    shares = flow.component_gradients(cell, params, inputs, loss=page.last_loss)
    W_h = np.stack([np.asarray(gate["W_h"]) for gate in shares.values()])  # (gate, T, ...)
    expected = 0.5 * np.log10((W_h**2).sum(axis=(0, 2, 3))[1:])  # at the first step h_0 = 0
    (variable,) = flow.CATALOGUE["components"].variables
    measured = page.run(quick(what=("components",)))
    drawn = drawing._lines(measured.components, variable)["W_h"]
    np.testing.assert_allclose(drawn[1, 1:] * np.log(10), expected * np.log(10), atol=1e-9)


def test_the_summary_and_the_claim_have_a_factor_for_each(dataset):
    factor = np.exp(flow.summary(dataset.log_norms.values).rate)
    assert page.summary(dataset).count(f"{factor:.4f}") == 2  # of the norm: the largest value
    (claim,) = page.claims(dataset)
    assert claim.measured[0].value == pytest.approx(factor, rel=1e-3)
    same = dataset.assign(
        lyapunov_exponents=0 * dataset.lyapunov_exponents - 0.1,
        log_norms=0 * dataset.log_norms - 0.1 * dataset.lag,
        log_singular_values=0 * dataset.log_singular_values.fillna(0) - 0.1 * dataset.lag,
        log_adjoint_norms=0 * dataset.log_adjoint_norms + 0.1 * dataset.earlier,
    )
    assert verdicts(page.claims(same)) == {"one-factor": "supported"}
    other = same.assign(lyapunov_exponents=same.lyapunov_exponents - 0.1)
    assert verdicts(page.claims(other)) == {"one-factor": "not supported"}
    assert page.claims(other[["log_norms"]]) == []


def test_other_measurements_of_the_catalogue_draw_by_their_kind():
    others = ("leading_singular_values", "component_map", "decomposition", "steps_by_path")
    dataset = page.run(quick(what=others, num_steps=4, hidden_size=3))
    drawn = page.figure(dataset)
    titles = [ax.get_title() for ax in drawn.axes if ax.get_title()]
    assert titles == ["Leading singular values", "Component map", "Decomposition", "Steps by path"]
    _, component_map, decomposition, paths, *_ = drawn.axes
    assert len(component_map.images) == 1 and len(paths.lines) == 5
    assert decomposition.texts[0].get_text() == "not drawn by itself"
    assert page.summary(dataset) == "No measurement gives a factor per step."


def test_a_cell_without_gates_is_measured_without_them():
    config = quick(cell="rnn", what=("log_norms", "gates"))
    dataset = page.run(config, study.call)
    assert list(np.atleast_1d(dataset.attrs["what"])) == ["log_norms"]


def test_an_unknown_measurement_is_refused():
    with pytest.raises(ValueError, match="Unknown measurement 'log_norm'. Did you mean"):
        page.run(quick(what=("log_norm",)))


def test_trained_parameters_are_measured_as_they_are(tmp_path, capsys):
    cell = rnn(3, 5)
    params = jax.tree.map(lambda leaf: 0.3 + leaf, cell.init(jax.random.key(5)))
    save_params(tmp_path / "p", params, cell="rnn", input_size=3, hidden_size=5)
    given = [f"--params={tmp_path}/p", "--what=log_norms,adjoints", "--quick"]
    assert study.main(EXPERIMENT, [*given, f"--workdir={tmp_path}/out"]) == 0
    found = study.read_dataset(tmp_path / "out" / "result.nc")
    assert found.attrs["cell"] == "rnn" and found.sizes["run"] == 2
    for number in range(2):
        _, x = one_run(quick(), cell, number)
        expected = flow.log_norms(cell, params, x)
        np.testing.assert_allclose(found.log_norms[number], expected, atol=1e-9)
    two = [f"--params={tmp_path}/p,{tmp_path}/p", f"--workdir={tmp_path}/two", "--quick"]
    assert study.main(EXPERIMENT, two) == 1
    assert "Expected one cell for one page, got rnn #1 and rnn #2." in capsys.readouterr().err
