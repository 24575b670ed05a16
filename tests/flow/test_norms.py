"""Log norms against automatic differentiation of the whole unroll, closed forms and the SVD."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree
from oracle import random_state

from gradflow import flow
from gradflow.cells import CELLS, lstm, resolve, rnn
from gradflow.cells.lstm import LSTMCarry
from gradflow.flow.blocks import block
from gradflow.numerics.spectral import spectral_norm, start_vectors

T = 30
TWO_FORMS = ["lstm", "rnn"]
"""With every block, in both norms: a cell of two states, and one whose blocks are one."""


def products_by_autodiff(cell, params, inputs):
    """∂s_T/∂s_k for k = T ... 0, from one differentiation of the whole unroll."""
    flat, unravel = ravel_pytree(cell.initial_carry())

    def last(nudges):
        def body(s, step):
            x, nudge = step
            return ravel_pytree(cell.step(params, unravel(s), x)[0])[0] + nudge, None

        return jax.lax.scan(body, flat + nudges[0], (inputs, nudges[1:]))[0]

    jacobian = jax.jit(jax.jacrev(last))(jnp.zeros((len(inputs) + 1, flat.size)))
    return np.asarray(jacobian).transpose(1, 0, 2)[::-1]


def block_indices(cell, name):
    carry = cell.initial_carry()
    flat, unravel = ravel_pytree(carry)
    picked = block(cell, name)(unravel(jnp.arange(flat.size, dtype=flat.dtype)))
    return np.asarray(picked).astype(int)


def by_svd(products, rows, columns, norm):
    order = 2 if norm == "spectral" else "fro"
    with np.errstate(divide="ignore"):
        return np.log(np.linalg.norm(products[:, rows][:, :, columns], ord=order, axis=(1, 2)))


def blocks_of(cell):
    fields = getattr(cell.initial_carry(), "_fields", ())
    return list(dict.fromkeys(["h", "carry", *fields]))


@pytest.mark.parametrize("name", sorted(CELLS))
def test_equal_automatic_differentiation_of_the_whole_unroll(name):
    """The second sacred test, for every cell and every block."""
    steps = T if name in TWO_FORMS else 12
    cell = CELLS[name](3, 4)
    params, _, _ = random_state(cell, 3)
    inputs = jax.random.normal(jax.random.key(5), (steps, 3))
    products = products_by_autodiff(cell, params, inputs)
    indices = {b: block_indices(cell, b) for b in blocks_of(cell)}
    pairs = [("h", "h"), ("carry", "carry")] + [(b, "h") for b in indices] * (name in TWO_FORMS)
    if np.array_equal(indices["h"], indices["carry"]) and name not in TWO_FORMS:
        pairs = pairs[:1]  # they are one block
    for source, target in dict.fromkeys(pairs):
        for norm in ("spectral", "frobenius") if name in TWO_FORMS else ("spectral",):
            measured = flow.log_norms(cell, params, inputs, norm=norm, source=source, target=target)
            expected = by_svd(products, indices[target], indices[source], norm)
            np.testing.assert_allclose(measured, expected, atol=1e-9, err_msg=f"{source}→{target}")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("gain", [0.3, 1.7])
def test_closed_form_far_beyond_the_range_of_floats(gain, dtype):
    """The third sacred test: a linear cell with W_h = gain · Q has log norm lag · log gain."""
    cell = rnn(1, 8, activation="identity", recurrent_init=f"orthogonal(gain={gain})")
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), cell.init(jax.random.key(0)))
    log_norms = flow.log_norms(cell, params, jnp.zeros((5000, 1), dtype))
    assert log_norms.dtype == dtype
    lags = np.arange(5001)
    np.testing.assert_allclose(log_norms, lags * np.log(gain), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("init", ["orthogonal", "identity", "glorot", "normal"])
@pytest.mark.parametrize("name", ["lstm", "rnn"])
def test_the_iterative_spectral_norm_equals_a_decomposition(name, init):
    cell = CELLS[name](4, 48, recurrent_init=init)
    params = cell.init(jax.random.key(2))
    inputs = jax.random.normal(jax.random.key(3), (60, 4))
    measured = flow.log_norms(cell, params, inputs)
    spectra = flow.leading_singular_values(cell, params, inputs, range(61))
    np.testing.assert_allclose(measured, spectra[:, 0], atol=1e-8)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), spread=st.sampled_from([1e-12, 1e-3, 0.3, 5.0]))
def test_the_spectral_norm_of_any_matrix_within_its_tolerance(seed, spread):
    """Clustered spectra are the hard ones; the start knows nothing of the matrix."""
    rng = np.random.default_rng(seed)
    q, r = (np.linalg.qr(rng.normal(size=(40, 40)))[0] for _ in range(2))
    matrix = q * np.exp(-spread * np.sort(rng.random(40))) @ r
    norm, tracked = _spectral_norm(jnp.asarray(matrix))
    expected = np.linalg.norm(matrix, ord=2)
    np.testing.assert_allclose(norm.lower, expected, rtol=1e-9)
    assert norm.lower <= expected * (1 + 1e-13) and norm.upper >= expected * (1 - 1e-13)
    vectors = tracked.vectors
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(len(vectors)), atol=1e-12)


@jax.jit
def _spectral_norm(matrix):
    return spectral_norm(matrix, start_vectors(len(matrix), matrix.dtype))


def test_decoupled_units_that_change_places_are_all_seen():
    """Diagonal matrices have no path by which one unit could find another."""
    rng = np.random.default_rng(0)
    diagonals = np.exp(np.cumsum(rng.normal(size=(50, 40)), axis=0) * 0.3)

    def norms(diagonals):
        def body(tracked, diagonal):
            norm, tracked = spectral_norm(jnp.diag(diagonal), tracked)
            return tracked, norm.lower

        return jax.lax.scan(body, start_vectors(40, diagonals.dtype), diagonals)[1]

    scaled = jnp.asarray(diagonals / diagonals.max(axis=1, keepdims=True))
    np.testing.assert_allclose(jax.jit(norms)(scaled), 1, rtol=1e-9)


def test_padded_steps_are_identities(key):
    cell = lstm(3, 4)
    params, inputs = cell.init(key), jax.random.normal(key, (9, 3))
    padded = flow.log_norms(cell, params, inputs.at[6:].set(jnp.nan), lengths=6)
    plain = flow.log_norms(cell, params, inputs[:6])
    np.testing.assert_array_equal(padded[:4], 0)
    np.testing.assert_allclose(padded[3:], plain, atol=1e-12)
    masked = flow.log_norms(cell, params, inputs, mask=jnp.arange(9) < 6)
    np.testing.assert_allclose(masked, padded, atol=1e-12)


@pytest.mark.parametrize("norm", ["spectral", "frobenius"])
def test_differentiates_like_finite_differences(key, norm):
    cell = rnn(2, 3)
    params, inputs = cell.init(key), jax.random.normal(key, (6, 2))

    def last(scale):
        scaled = {**params, "W_h": scale * params["W_h"]}
        return flow.log_norms(cell, scaled, inputs, norm=norm)[-1]

    difference = (last(1 + 1e-5) - last(1 - 1e-5)) / 2e-5
    np.testing.assert_allclose(jax.grad(last)(1.0), difference, rtol=1e-7)
    np.testing.assert_allclose(jax.jvp(last, (1.0,), (1.0,))[1], difference, rtol=1e-7)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_relabelling_the_units_changes_nothing(seed):
    params = _INIT_LSTM(jax.random.key(seed))
    inputs = jax.random.normal(jax.random.key(seed + 1), (8, 2))
    order = jax.random.permutation(jax.random.key(seed + 2), 5)
    relabelled = {
        gate: {"W_x": p["W_x"][order], "W_h": p["W_h"][order][:, order], "b": p["b"][order]}
        for gate, p in params.items()
    }
    log_norms = _MEASURE_LSTM(params, inputs)
    np.testing.assert_allclose(log_norms, _MEASURE_LSTM(relabelled, inputs), atol=1e-12)


# One program for all examples.
_LSTM = lstm(2, 5)
_INIT_LSTM = jax.jit(_LSTM.init)
_MEASURE_LSTM = jax.jit(partial(flow.log_norms, _LSTM))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_norms_are_bounded_by_the_weights_and_the_largest_slope(seed):
    """Pascanu 2013, section 2: ‖∂h_T/∂h_k‖ <= (γ ‖W_h‖)^(T-k), γ the activation's largest slope."""
    params = _INIT_RNN(jax.random.key(seed))
    inputs = jax.random.normal(jax.random.key(seed + 1), (8, 2))
    for gamma, measure in _MEASURE_RNN.items():
        bound = np.arange(9) * np.log(gamma * np.linalg.norm(params["W_h"], ord=2))
        assert (np.asarray(measure(params, inputs)) <= bound + 1e-12).all()


_RNNS = {
    gamma: rnn(2, 5, recurrent_init="normal", activation=activation)
    for gamma, activation in ((1.0, "tanh"), (0.25, "sigmoid"))
}
_INIT_RNN = jax.jit(_RNNS[1.0].init)
_MEASURE_RNN = {gamma: jax.jit(partial(flow.log_norms, cell)) for gamma, cell in _RNNS.items()}


def test_the_constant_error_carousel_carries_the_cell_state_unchanged(key):
    cell = lstm(2, 4)
    params = jax.tree.map(jnp.zeros_like, cell.init(key))
    params["f"]["b"] += 1e3  # f = 1
    params["i"]["b"] -= 1e3  # i = 0
    carry = LSTMCarry(jnp.ones(4), jnp.ones(4))
    log_norms = flow.log_norms(cell, params, jnp.ones((50, 2)), source="c", target="c", carry=carry)
    np.testing.assert_array_equal(log_norms, 0)


@pytest.mark.parametrize("lags", [[], [3, 2], [1, 1], [-1], [11]])
def test_lags_must_ascend_within_the_sequence(key, lags):
    cell = rnn(3, 4)
    with pytest.raises(ValueError, match=r"Expected ascending lags within 0 ... T = 10, got"):
        flow.leading_singular_values(cell, cell.init(key), jnp.zeros((10, 3)), lags)


@pytest.mark.parametrize("size", [5, 40])
def test_leading_singular_values_have_the_error_of_rounding_beside_the_largest(key, size):
    cell = resolve("lstm")(3, size)
    params, inputs = cell.init(key), jax.random.normal(key, (160, 3))
    lags = [0, 5, 160]
    exact = flow.log_singular_values(cell, params, inputs)[np.array(lags)]
    leading = flow.leading_singular_values(cell, params, inputs, lags)
    kept = ~np.isnan(leading)
    assert kept[:2].all() and kept[2, 0] and not kept[2].all()
    error = np.abs(np.exp(leading) - np.exp(exact)) / np.exp(exact[:, :1])
    lags = np.array(lags)[:, None]
    bound = (256 + 8 * lags + 4 * 2 * size * np.sqrt(lags)) * np.finfo(float).eps
    assert np.all((error <= bound)[kept])
    floor = exact[:, :1] + np.log(2 * bound)
    assert np.all((exact < floor)[~kept])
