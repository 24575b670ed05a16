"""Sparse, critical and chrono initial values, each by the law that its paper states."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradflow.cells.cfn import cfn
from gradflow.cells.janet import janet
from gradflow.cells.layer_norm import lstm_layer_norm
from gradflow.cells.lstm import lstm
from gradflow.cells.mingru import minlstm
from gradflow.initializers import (
    BIAS_INITIALIZERS,
    BiasInitializer,
    chrono,
    critical,
    resolve_bias,
    resolve_initializer,
    sparse,
)
from gradflow.initializers.meanfield import ACTIVATIONS, critical_gain, gaussian_mean

FLOAT = jnp.float64


def draw(init, *shape, seed=0):
    return np.asarray(init(jax.random.key(seed), shape, FLOAT))


# --- sparse ---


@pytest.mark.parametrize("connections, per_row", [(3, 3), (15, 10)])
def test_sparse_has_its_connections_in_each_row_at_random_places(connections, per_row):
    W = draw(sparse(connections), 10, 10)
    np.testing.assert_array_equal((W != 0).sum(axis=1), per_row)
    np.testing.assert_allclose(abs(np.linalg.eigvals(W)).max(), 0.95, rtol=1e-12)
    keys = jax.random.split(jax.random.key(0), 3000)
    drawn = jax.vmap(lambda key: sparse(connections, gain=1.0)(key, (1, 10), FLOAT))(keys)
    share = (np.asarray(drawn) != 0).mean(axis=0)
    np.testing.assert_allclose(share, per_row / 10, atol=5 * 0.5 / math.sqrt(3000))


def test_sparse_values_are_normal_with_the_gain_of_a_unit():
    W = draw(sparse(15, gain=1.5), 400, 200)
    values = W[W != 0] * math.sqrt(15) / 1.5
    assert abs(values.mean()) < 5 / math.sqrt(values.size)
    assert abs((values**2).mean() - 1) < 5 * math.sqrt(2 / values.size)
    assert abs((values**4).mean() - 3) < 5 * math.sqrt(96 / values.size)


def test_sparse_of_a_radius_is_the_one_asked_for():
    W = draw(resolve_initializer("sparse(connections=2, radius=1.25)"), 8, 8)
    np.testing.assert_allclose(abs(np.linalg.eigvals(W)).max(), 1.25, rtol=1e-12)


@pytest.mark.parametrize(
    "spec, message",
    [
        ("sparse(connections=0)", "Expected connections to be at least 1, got 0"),
        (
            "sparse(gain=1.0, radius=0.9)",
            "Expected gain or radius, got gain=1.0, radius=0.9. Remove one",
        ),
        ("sparse(radius=-1.0)", "Expected radius to be positive, got -1.0"),
    ],
)
def test_a_wrong_sparse_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        resolve_initializer(spec)


# --- critical ---


def hermite_mean(function):
    z, weights = np.polynomial.hermite_e.hermegauss(90)
    return float(weights @ function(z)) / math.sqrt(2 * math.pi)


def test_a_gaussian_mean_is_that_of_closed_forms_and_of_gauss_hermite():
    assert gaussian_mean(lambda z: z**4) == pytest.approx(3, rel=1e-13)
    assert gaussian_mean(lambda z: np.cos(2 * z)) == pytest.approx(math.exp(-2), rel=1e-12)
    assert gaussian_mean(lambda z: np.maximum(z, 0) ** 2) == pytest.approx(0.5, rel=1e-13)
    tanh = lambda z: np.tanh(0.5 * z) ** 2  # noqa: E731
    assert gaussian_mean(tanh) == pytest.approx(hermite_mean(tanh), rel=1e-9)
    # E tanh'(x) for x of deviation 0.5 and 1.
    for s, mean in ((0.5, 0.827), (1.0, 0.606)):
        assert gaussian_mean(lambda z, s=s: 1 - np.tanh(s * z) ** 2) == pytest.approx(
            mean, abs=1e-3
        )


@pytest.mark.parametrize("activation, gain", [("tanh", 1), ("identity", 1), ("relu", math.sqrt(2))])
def test_the_critical_gain_without_noise_is_the_closed_form(activation, gain):
    assert critical_gain(activation) == pytest.approx(gain, rel=1e-12)


@pytest.mark.parametrize("noise", [0.01, 0.3, 1.0])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_at_the_critical_gain_the_variance_is_a_fixed_point_of_slope_one(activation, noise):
    sigma = critical_gain(activation, bias_std=0.6 * noise, input_std=0.8 * noise)
    phi, slope = ACTIVATIONS[activation]
    q = 1.0
    for _ in range(2000):  # the map of the theory itself, run to its fixed point
        q = sigma**2 * gaussian_mean(lambda z, q=q: phi(math.sqrt(q) * z) ** 2) + noise**2
    chi = sigma**2 * gaussian_mean(lambda z: slope(math.sqrt(q) * z) ** 2)
    assert chi == pytest.approx(1, abs=1e-6)
    for f, df in [ACTIVATIONS[activation]]:
        x = np.linspace(-3, 3, 13)
        np.testing.assert_allclose((f(x + 1e-6) - f(x - 1e-6)) / 2e-6, df(x), atol=1e-9)


def test_a_wide_net_at_the_critical_gain_keeps_a_gradient():
    n, noise = 1000, 0.5
    init, rng = critical(input_std=noise), np.random.default_rng(0)
    h = np.zeros(n)
    for t in range(30):  # fresh weights at each step, as the theory has them
        W = draw(init, n, n, seed=t)
        h = np.tanh(W @ h + noise * rng.standard_normal(n))
    chi = ((1 - h**2)[:, None] ** 2 * W**2).sum() / n
    assert chi == pytest.approx(1, abs=0.03)
    assert critical_gain(input_std=noise) > 1.1


@pytest.mark.parametrize(
    "options, message",
    [
        ({"activation": "tahn"}, "Unknown activation of mean-field theory 'tahn'. Did you mean 't"),
        ({"bias_std": -1.0}, "Expected bias_std to be non-negative, got -1.0"),
        ({"input_std": math.nan}, "Expected input_std to be non-negative, got nan"),
        (
            {"activation": "relu", "bias_std": 0.5},
            "Expected a fixed point of the variance below 1024, got none for relu",
        ),
        (
            {"activation": "identity", "input_std": 1.0},
            "Expected a fixed point of the variance .* got none for identity",
        ),
    ],
)
def test_a_critical_line_that_is_not_there_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        critical(**options)


# --- chrono ---


def test_chrono_is_the_logarithm_of_a_uniform_law():
    u = np.exp(chrono(50)(jax.random.key(0), (20000,), FLOAT))
    assert u.min() >= 1 and u.max() <= 49 and u.max() > 48.9
    grid = np.linspace(1, 49, 97)
    law = np.searchsorted(np.sort(u), grid) / u.size  # Kolmogorov & Smirnov
    assert abs(law - (grid - 1) / 48).max() < 1.9 / math.sqrt(u.size)


@pytest.mark.parametrize("options", [{}, {"peephole": True}])
def test_the_lstm_takes_chrono_for_its_forget_gate_and_its_opposite_for_the_input(key, options):
    plain = lstm(3, 4, **options).init(key)
    params = lstm(3, 4, forget_bias="chrono(max_lag=100)", **options).init(key)
    b = params["f"]["b"]
    assert (b >= 0).all() and (b <= math.log(99)).all() and np.ptp(b) > 0.1
    np.testing.assert_array_equal(params["i"]["b"], -b)
    biases = {"f": {"b": plain["f"]["b"]}, "i": {"b": plain["i"]["b"]}}
    restored = params | {gate: params[gate] | biases[gate] for gate in biases}
    jax.tree.map(np.testing.assert_array_equal, restored, plain)
    np.testing.assert_array_equal(plain["f"]["b"], 1)
    np.testing.assert_array_equal(plain["i"]["b"], 0)


@pytest.mark.parametrize("factory", [lstm, lstm_layer_norm, cfn, minlstm])
def test_chrono_sets_both_biases_in_every_cell_with_a_forget_and_an_input_gate(key, factory):
    for law in ("chrono(max_lag=100)", chrono(100)):
        params = factory(3, 4, forget_bias=law).init(key)
        assert np.ptp(params["f"]["b"]) > 0.1
        np.testing.assert_array_equal(params["i"]["b"], -params["f"]["b"])


@pytest.mark.parametrize("factory", [lstm, lstm_layer_norm, cfn, minlstm])
def test_any_other_law_sets_the_forget_bias_alone(key, factory, monkeypatch):
    alone = BiasInitializer(lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, 2, 3))
    monkeypatch.setitem(BIAS_INITIALIZERS, "uniform", lambda: alone)
    plain = factory(3, 4).init(key)
    for law in ("uniform", alone, 2.5):
        params = factory(3, 4, forget_bias=law).init(key)
        assert (params["f"]["b"] >= 2).all()
        np.testing.assert_array_equal(params["i"]["b"], plain["i"]["b"])


@pytest.mark.parametrize("make", [janet, lambda d, n, **o: lstm(d, n, coupled=True, **o)])
def test_a_gate_that_also_lets_in_needs_no_other_bias(key, make):
    params = make(3, 4, forget_bias="chrono(max_lag=100)").init(key)
    assert np.ptp(params["f"]["b"]) > 0.1
    assert all((params[gate]["b"] == 0).all() for gate in params if gate != "f")


@pytest.mark.parametrize(
    "spec, message",
    [
        ("chrono(max_lag=2)", "Expected max_lag above 2 steps, got 2"),
        ("chrono", "options of the bias initialiser 'chrono', .*missing .*'max_lag'"),
        ("crono(max_lag=9)", r"Unknown bias initialiser 'crono'. Did you mean 'chrono'\?"),
    ],
)
def test_a_wrong_bias_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        resolve_bias(spec)
    with pytest.raises(ValueError, match=message):
        lstm(3, 4, forget_bias=spec)
