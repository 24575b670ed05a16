"""Activations of gates against a NumPy LSTM, and the counts made of them against NumPy's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from products import problem

from gradflow.cells import gru, lstm, rnn
from gradflow.flow.gates import gate_histograms, gate_range, gates, saturation
from gradflow.unroll import unroll

T = 7


setup = functools.partial(problem, num_steps=T)


def numpy_lstm_gates(params, inputs, carry):
    """The gates of an LSTM at every step, from the equations."""
    params = jax.tree.map(np.asarray, params)
    h, c = (np.asarray(leaf) for leaf in carry)
    record = {q: [] for q in "ifgo"}
    for x in np.asarray(inputs):
        a = {q: p["W_x"] @ x + p["W_h"] @ h + p["b"] for q, p in params.items()}
        now = {q: np.tanh(a[q]) if q == "g" else 1 / (1 + np.exp(-a[q])) for q in "ifgo"}
        c = now["f"] * c + now["i"] * now["g"]
        h = now["o"] * np.tanh(c)
        for q, value in now.items():
            record[q].append(value)
    return {q: np.stack(values) for q, values in record.items()}


def test_gates_of_the_lstm_equal_those_of_numpy():
    cell = lstm(3, 4)
    params, inputs, carry = setup(cell)
    measured = gates(cell, params, inputs, carry=carry)
    expected = numpy_lstm_gates(params, inputs, carry)
    assert set(measured) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(measured[name], values, rtol=1e-12, atol=1e-14)


def test_gates_of_the_gru_give_its_trajectory():
    cell = gru(3, 4)
    params, inputs, carry = setup(cell)
    measured = gates(cell, params, inputs, carry=carry)
    h = carry
    for r, z, n, x in zip(measured["r"], measured["z"], measured["n"], inputs, strict=True):
        p = params["r"]
        np.testing.assert_allclose(
            r, jax.nn.sigmoid(p["W_x"] @ x + p["W_h"] @ h + p["b"]), rtol=1e-12
        )
        h = (1 - z) * n + z * h
    np.testing.assert_allclose(h, unroll(cell, params, inputs, carry=carry).carries[-1], rtol=1e-12)


def test_padding_has_no_gates():
    cell = lstm(3, 4)
    params, inputs, _ = setup(cell)
    short = gates(cell, params, inputs[:4])
    padded = gates(cell, params, inputs, lengths=4)
    np.testing.assert_allclose(padded["f"][:4], short["f"], rtol=1e-12)
    assert np.isnan(padded["f"][4:]).all()
    assert np.isnan(saturation(padded)["f"][4:]).all()
    assert np.isnan(gate_histograms(padded, bins=3)["f"][4:]).all()
    np.testing.assert_allclose(np.sum(gate_histograms(padded)["f"][:4], axis=1), 1, rtol=1e-12)


def test_the_trajectory_continues_after_a_gap_in_the_mask():
    cell = lstm(3, 4)
    params, inputs, _ = setup(cell)
    mask = jnp.arange(T) != 2
    with_gap = gates(cell, params, inputs, mask=mask)
    without = gates(cell, params, inputs[mask])
    np.testing.assert_allclose(with_gap["o"][mask], without["o"], rtol=1e-12)


def test_saturation_counts_units_below_and_above():
    values = {"f": jnp.array([[0.05, 0.95, 0.5, 0.99], [0.5, 0.5, 0.5, 0.02]])}
    measured = saturation(values)
    np.testing.assert_array_equal(measured["f"], [[0.25, 0.5], [0.25, 0]])
    stricter = saturation(values, low=0.03, high=0.98)
    np.testing.assert_array_equal(stricter["f"], [[0, 0.25], [0.25, 0]])


def test_a_candidate_is_saturated_near_minus_one_and_one():
    values = jnp.array([[-0.85, -0.75, 0.05, 0.85, 0.75]])
    measured = saturation({"g": values, "f": values})
    np.testing.assert_allclose(measured["g"], [[0.2, 0.2]], rtol=1e-15)
    np.testing.assert_allclose(measured["f"], [[0.6, 0]], rtol=1e-15)
    as_gate = saturation({"g": values}, ranges={"g": (0.0, 1.0)})
    np.testing.assert_array_equal(as_gate["g"], measured["f"])


def test_transposed_gates_give_the_fractions_over_time():
    cell = lstm(3, 4)
    params, inputs, _ = setup(cell)
    values = jax.tree.map(lambda leaf: leaf**3, gates(cell, params, inputs))
    measured = saturation(jax.tree.map(jnp.transpose, values))["i"]
    i = np.asarray(values["i"])
    expected = np.stack([np.mean(i < 0.1, axis=0), np.mean(i > 0.9, axis=0)], axis=1)
    np.testing.assert_allclose(measured, expected, rtol=1e-14)
    assert measured.any()


def test_a_large_bias_holds_the_gate_open():
    cell = lstm(3, 4, forget_bias=50.0)
    params = cell.init(jax.random.key(0))
    measured = saturation(gates(cell, params, setup(cell)[1]))
    np.testing.assert_array_equal(measured["f"], np.tile([0.0, 1.0], (T, 1)))
    assert (measured["g"] < 1).all()


@pytest.mark.parametrize("name", ["f", "g"])
def test_histograms_equal_those_of_numpy(name):
    cell = lstm(3, 8)
    params, inputs, _ = setup(cell)
    values = gates(cell, params, inputs)
    measured = gate_histograms(values, bins=5)[name]
    for row, shares in zip(np.asarray(values[name]), measured, strict=True):
        counts, _ = np.histogram(row, bins=5, range=gate_range(name))
        np.testing.assert_allclose(shares, counts / 8, rtol=1e-15)
    np.testing.assert_allclose(np.sum(measured, axis=1), 1, rtol=1e-14)


def test_activations_out_of_range_fall_in_no_bin():
    measured = gate_histograms({"z": jnp.array([[-0.5, 0.0, 1.0, 1.5]])}, bins=2)
    np.testing.assert_array_equal(measured["z"], [[0.25, 0.25]])


def test_a_cell_without_gates_is_an_error_that_names_those_with():
    cell = rnn(3, 4)
    with pytest.raises(ValueError, match="gates is None. Give it .*gru.*lstm"):
        gates(cell, cell.init(jax.random.key(0)), jnp.zeros((T, 3)))


@pytest.mark.parametrize(("low", "high"), [(0.9, 0.1), (0.5, 0.5), (-0.1, 0.9), (0.1, 1.1)])
def test_thresholds_out_of_order_are_an_error(low, high):
    with pytest.raises(ValueError, match=f"Expected 0 <= low < high <= 1, got low={low}"):
        saturation({"f": jnp.zeros((T, 4))}, low=low, high=high)


def test_no_bins_and_wrong_ranges_are_an_error():
    values = {"f": jnp.zeros((T, 4))}
    with pytest.raises(ValueError, match="Expected at least one bin, got bins=0"):
        gate_histograms(values, bins=0)
    with pytest.raises(ValueError, match=r"among \['f'\], got g: \(0.0, 1.0\)"):
        gate_histograms(values, ranges={"g": (0.0, 1.0)})
    with pytest.raises(ValueError, match=r"got f: \(1.0, 1.0\)\. Correct it"):
        saturation(values, ranges={"f": (1.0, 1.0)})
