import jax
import numpy as np
import pytest

from gradflow.cells import resolve
from gradflow.interop import Layer
from gradflow.report import widths
from gradflow.report.advice import copies, measure_changes
from gradflow.report.copies import calls
from gradflow.report.losses import Batch
from gradflow.report.measuring import measure_layer
from gradflow.report.widths import shared_widths, widened

STEPS = 6


@pytest.fixture(autouse=True)
def in_float64():
    with jax.enable_x64(True):
        yield


def layer(name: str, input_size: int, spec: str = "lstm", hidden_size: int = 3) -> Layer:
    params = resolve(spec)(input_size, hidden_size).init(jax.random.key(input_size))
    params = jax.tree.map(np.asarray, params)
    return Layer(name, spec, input_size, hidden_size, params, "the test's own")


def batch(input_size: int) -> Batch:
    inputs = np.random.default_rng(input_size).normal(size=(2, STEPS, input_size))
    return Batch(inputs, np.asarray([STEPS, STEPS - 2]))


def test_layers_that_differ_in_their_inputs_alone_share_the_largest_size(monkeypatch):
    monkeypatch.setattr(widths, "WIDEST", 10)
    layers = [layer("a", 2), layer("b", 6), layer("c", 12), layer("d", 2, "gru"), layer("e", 4)]
    other = [layer("f", 3, "gru", hidden_size=5)]
    expected = {"a": 6, "b": 6, "c": 12, "d": 2, "e": 6, "f": 3}
    assert shared_widths(layers + other) == expected


@pytest.mark.parametrize("spec", ["lstm", "rnn"])
def test_a_widened_layer_is_measured_as_the_layer_itself(spec):
    one, own = layer("a", 2, spec), batch(2)
    gradients = np.random.default_rng(0).normal(size=(2, STEPS, 3))
    expected = measure_layer(one, own, gradients)
    found = measure_layer(*widened(one, own, 5), gradients)
    assert set(found.variables) == set(expected.variables)
    for name, values in expected.variables.items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(found[name], values, rtol=1e-10, atol=1e-12, err_msg=name)
        else:
            np.testing.assert_array_equal(found[name], values, err_msg=str(name))


def test_changes_of_a_widened_layer_are_those_of_the_layer_itself():
    one, own = layer("a", 2), batch(2)
    expected = measure_changes([one], [own]).layer0_change_curve
    found = measure_changes([one], [widened(one, own, 5)[1]]).layer0_change_curve
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_widened_layers_share_their_programs():
    one, two = layer("a", 2), layer("b", 5)
    wide = widened(one, batch(2), 5)
    assert wide[0].cell is two.cell
    both = copies([one, two], [wide[1], batch(5)])
    # One program for an LSTM, one with layer normalisation, and one for a GRU.
    assert len(calls([copy for own in both for _, copy in own])) == 3
