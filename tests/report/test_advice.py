import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradflow import flow
from gradflow.cells import resolve
from gradflow.interop import Layer
from gradflow.report import advice
from gradflow.report.advice import KEPT, NEW, changes, helps, judged, measure_changes
from gradflow.report.losses import Batch
from gradflow.report.measuring import measure_layer
from gradflow.report.nets import layer_data

STEPS = 12


@pytest.fixture(autouse=True)
def in_float64():
    with jax.enable_x64(True):
        yield


def layer(spec: str, **options) -> Layer:
    with jax.enable_x64(True):
        params = resolve(spec)(2, 4, **options).init(jax.random.key(0))
    return Layer("layer", spec, 2, 4, jax.tree.map(np.asarray, params), "the test's own")


def by_name(spec: str) -> dict:
    return {change.name: change for change in changes(layer(spec), STEPS)}


@pytest.mark.parametrize(
    ("spec", "gate", "word"), [("lstm", "f", "forget"), ("gru", "z", "update")]
)
def test_the_bias_of_the_gate_that_keeps_is_raised(spec, gate, word):
    before = layer(spec).params
    for more in (1, 2):
        change = by_name(spec)[f"{word} bias + {more}"]
        np.testing.assert_array_equal(change.params[gate]["b"], before[gate]["b"] + more)
        np.testing.assert_array_equal(change.params[gate]["W_h"], before[gate]["W_h"])
        assert change.kind == KEPT


def test_chrono_biases_last_for_the_sequence():
    params = by_name("lstm")[f"chrono forget bias for {STEPS} steps"].params
    b = params["f"]["b"]
    assert (b > 0).all() and (b < np.log(STEPS - 1)).all()
    np.testing.assert_array_equal(params["i"]["b"], -b)


def test_recurrent_matrices_are_made_orthogonal_or_the_identity():
    W = by_name("rnn")["orthogonal W_h"].params["W_h"]
    np.testing.assert_allclose(W @ W.T, np.eye(4), atol=1e-12)
    np.testing.assert_array_equal(by_name("rnn")["identity W_h"].params["W_h"], np.eye(4))
    gates = by_name("lstm")["orthogonal W_h"].params
    for gate in gates.values():
        np.testing.assert_allclose(gate["W_h"] @ gate["W_h"].T, np.eye(4), atol=1e-12)


def test_other_cells_are_new():
    for spec, others in {"lstm": ("lstm_layer_norm", "gru"), "rnn": ("gru", "lstm")}.items():
        for other in others:
            change = by_name(spec)[f"{other} of the same size"]
            assert change.params is None and change.kind == NEW and change.spec == other


def test_a_projected_layer_keeps_its_matrices():
    one = layer("lstm(projection_size=3)")
    for gate, params in dict(one.params).items():
        if gate != "projection":
            changed = {c.name: c for c in changes(one, STEPS)}["orthogonal W_h"].params
            np.testing.assert_array_equal(changed[gate]["W_h"], params["W_h"])


def test_changes_are_measured_again(monkeypatch):
    """One change of the weights and one of the cell: a diagnosis of the demo has all of them."""
    one = layer("lstm", forget_bias=-3.0)
    names = ("forget bias + 2", "gru of the same size")
    some = [change for change in changes(one, STEPS) if change.name in names]
    monkeypatch.setattr(advice, "changes", lambda *_: some)
    x = np.random.default_rng(0).normal(size=(2, STEPS, 2))
    batch = Batch(x, np.full(2, STEPS))
    before = measure_layer(one, batch, np.ones((2, STEPS, 4)))
    found = judged(layer_data(measure_changes([one], [batch]), "layer0_"), before, STEPS)
    assert found.change.values.tolist() == [change.name for change in some]
    params = jax.tree.map(jnp.asarray, some[0].params)
    curves = [flow.log_norms(one.cell, params, jnp.asarray(each)) for each in x]
    row = found.sel(change="forget bias + 2")
    assert float(row.change_log_norm) == pytest.approx(
        float(np.median([c[-1] for c in curves])), abs=1e-4
    )
    assert float(row.change_log_norm) > float(found.log_norm_before) + np.log(10)
    assert helps(float(found.log_norm_before), float(row.change_log_norm))
    same = float(flow.horizons(np.median(before.log_norm, axis=0)))
    assert float(found.horizon_before) == same


@pytest.mark.parametrize(
    ("before", "after", "better"),
    [
        (-9.0, -8.0, True),
        (-9.0, -8.9, False),
        (9.0, -1.0, True),
        (-9.0, 9.0, False),
        (-np.inf, -5.0, True),
        (-5.0, np.nan, False),
        (np.nan, 0.0, True),
    ],
)
def test_a_change_helps_if_the_norm_comes_nearer_to_one(before, after, better):
    assert helps(before, after) is better
