import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradflow import flow, unroll
from gradflow.cells import resolve
from gradflow.interop import Layer
from gradflow.report import measuring
from gradflow.report.losses import Batch
from gradflow.report.measuring import measure_layer

LENGTHS = np.asarray([5, 7])
X = np.random.default_rng(0).normal(size=(2, 8, 2))
G = np.random.default_rng(1).normal(size=(2, 8, 3)) * (np.arange(8) < LENGTHS[:, None])[..., None]


def layer(spec: str, **options) -> Layer:
    with jax.enable_x64(True):
        params = jax.tree.map(np.asarray, resolve(spec)(2, 3).init(jax.random.key(0)))
    return Layer("layer", spec, 2, 3, params, "the test's own", **options)


@functools.cache
def measured(direction: str):
    with jax.enable_x64(True):
        return measure_layer(layer("lstm", direction=direction), Batch(X, LENGTHS), G)


@pytest.fixture(autouse=True)
def in_float64():
    with jax.enable_x64(True):
        yield


def given(number: int) -> dict:
    one = layer("lstm")
    length = LENGTHS[number]
    params = jax.tree.map(jnp.asarray, one.params)
    return {"cell": one.cell, "params": params, "inputs": jnp.asarray(X[number, :length])}


def test_norms_are_those_of_the_real_steps():
    found = measured("forward").log_norm.values
    assert found.shape == (2, 8)  # 7 is the longest: the eighth step is padding
    np.testing.assert_allclose(found[1], flow.log_norms(**given(1)), atol=1e-9)
    np.testing.assert_allclose(found[0, :6], flow.log_norms(**given(0)), atol=1e-9)
    assert np.isnan(found[0, 6:]).all()


def test_matrices_are_of_the_longest_sequence():
    found = measured("forward")
    np.testing.assert_allclose(found.log_norm_map, flow.log_norm_map(**given(1)), atol=1e-8)
    values = flow.leading_singular_values(**given(1), lags=found.spectrum_lag.values.tolist())
    np.testing.assert_allclose(found.log_singular_value, values, atol=1e-9)
    exponents = flow.lyapunov_exponents(**given(1)).exponents
    np.testing.assert_allclose(found.lyapunov_exponent, exponents, atol=1e-9)
    paths = flow.steps_by_path(**given(1))
    np.testing.assert_allclose(found.steps_by_path, np.stack(paths), atol=1e-8)


def test_eigenvalues_are_those_of_the_last_step():
    cell, params, x = given(1).values()
    carries = jax.tree.map(lambda a: a[6], unroll(cell, params, x).carries)

    def step(s):
        return cell.step(params, s, x[6])[0]

    blocks = jax.jacobian(step)(carries)
    matrix = np.block([[b for b in row] for row in blocks])
    found = measured("forward").eigenvalue.values[1]
    expected = np.linalg.eigvals(matrix)
    order = lambda z: np.sort_complex(np.round(z, 9))  # noqa: E731
    np.testing.assert_allclose(order(found[:, 0] + 1j * found[:, 1]), order(expected), atol=1e-8)


def test_credit_and_adjoints_are_those_of_the_given_gradient():
    found = measured("forward")

    def loss(outputs):
        return jnp.sum(outputs * G[0, :5])

    parts = jax.tree.leaves(flow.components(loss=loss, **given(0)))
    total = 0.5 * np.log(np.sum(np.exp(2 * np.stack(parts)), axis=0))
    np.testing.assert_allclose(found.log_component[0, :5], total, atol=1e-9)
    assert np.isnan(found.log_component[0, 5:]).all()
    adjoint = flow.log_adjoint_norms(loss=loss, source="carry", **given(0))
    np.testing.assert_allclose(found.log_adjoint_norm[0, :5], adjoint[1:], atol=1e-9)
    cell, params, x = given(0).values()
    grads = jax.grad(lambda p: loss(unroll(cell, p, x).outputs))(params)
    norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(grads)))
    np.testing.assert_allclose(found.log_gradient_norm[0], np.log(norm), atol=1e-9)


def test_a_reverse_layer_reads_each_sequence_from_its_own_end():
    turned = np.zeros_like(X)
    turned_g = np.zeros_like(G)
    for n, length in enumerate(LENGTHS):
        turned[n, :length], turned_g[n, :length] = X[n, :length][::-1], G[n, :length][::-1]
    same = measure_layer(layer("lstm"), Batch(turned, LENGTHS), turned_g)
    found = measured("reverse")
    np.testing.assert_allclose(found.log_norm, same.log_norm, atol=1e-12)
    np.testing.assert_allclose(found.log_component, same.log_component, atol=1e-12)


def test_gates_and_states_are_means_over_real_steps():
    found = measured("forward")
    forget = [np.asarray(flow.gates(**given(n))["f"]).mean(axis=1) for n in range(2)]
    expected = (forget[0][0] + forget[1][0]) / 2
    np.testing.assert_allclose(found.gate_usage.sel(gate="f", use="mean")[0], expected)
    assert float(found.gate_usage.sel(gate="f", use="mean")[6]) == pytest.approx(forget[1][6])
    states = [unroll(**given(n)).outputs for n in range(2)]
    np.testing.assert_allclose(found.unit_deviation, np.concatenate(states).std(axis=0))


def test_recurrent_matrices_are_described():
    found, W = measured("forward"), layer("lstm").params["g"]["W_h"]
    place = list(found.matrix.values).index("g")
    assert float(found.spectral_norm[place]) == pytest.approx(np.linalg.norm(W, 2))
    assert float(found.spectral_radius[place]) == pytest.approx(max(abs(np.linalg.eigvals(W))))


def test_a_large_layer_gets_some_rows_of_the_map_in_float32(monkeypatch):
    monkeypatch.setattr(measuring, "FULL_MAP", (2, 256))
    one = layer("rnn")
    found = measure_layer(one, Batch(X[:, :7], np.asarray([7, 7])), G[:, :7])
    params = jax.tree.map(jnp.asarray, one.params)
    whole = flow.log_norm_map(one.cell, params, jnp.asarray(X[0, :7]), norm="frobenius")
    np.testing.assert_allclose(found.log_norm_map, whole[found.later.values], atol=1e-5)


def test_norms_are_measured_for_as_many_sequences_as_the_budget_allows(monkeypatch):
    monkeypatch.setattr(measuring, "BUDGET", 1.0)
    x, g = np.repeat(X[:1, :7], 3, axis=0), np.repeat(G[:1, :7], 3, axis=0)
    found = measure_layer(layer("rnn"), Batch(x, np.full(3, 7)), g)
    assert found.log_norm.shape == (2, 8) and found.log_component.shape == (3, 7)


def test_blank_steps_are_those_whose_input_does_not_change():
    x = X[:1, :7].copy()
    x[0, 4:] = x[0, 4]
    one = measure_layer(layer("rnn"), Batch(x, np.asarray([7])), G[:1, :7])
    assert (one.input_deviation > 0).values.tolist() == [True] * 5 + [False] * 2
    both = np.concatenate([x, x + np.arange(7)[:, None]])  # alike at the first step alone
    two = measure_layer(layer("rnn"), Batch(both, np.asarray([7, 7])), np.repeat(G[:1, :7], 2, 0))
    assert (two.input_deviation > 0).values.tolist() == [False] + [True] * 6


def test_weights_that_are_not_finite_are_measured():
    one = layer("rnn")
    one.params["W_h"] = one.params["W_h"].copy()
    one.params["W_h"][0, 0] = np.nan
    found = measure_layer(one, Batch(X[:, :7], np.asarray([7, 7])), G[:, :7])
    assert found.first_nonfinite.values.tolist() == [1, 1]
    assert np.isnan(found.spectral_radius).all()
