"""The study of normalisation and noise: its cells, its record and its verdicts."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray
from studies import load_part, one_run, verdicts

from gradflow.cells import LSTMCarry, lstm
from gradflow.cells.dropout import with_dropout, zoneout

normalisation, measuring, networks = (
    load_part(f"normalisation.{part}") for part in ("study", "measuring", "networks")
)
EXPERIMENT = normalisation.EXPERIMENT


def quick(**given):
    return EXPERIMENT.resolve(given, quick=True)


@pytest.fixture
def carry():
    return LSTMCarry(jnp.asarray([0.3, -0.6, 0.9]), jnp.asarray([1.0, 0.2, -0.5]))


X = jnp.asarray([0.5, -1.0])


def test_dropout_is_the_library_s_with_the_numbers_from_the_input(carry, key):
    cell = lstm(2, 3)
    params, u = cell.init(key), jnp.asarray([0.1, 0.39, 0.41])
    library = with_dropout(cell, rate_h=0.4)
    expected, _ = library.step({"cell": params, "u_x": jnp.ones(2), "u_h": u}, carry, X)
    found, _ = networks.dropped(cell).step(
        {"cell": params, "rate": 0.4}, carry, jnp.concatenate([X, u])
    )
    np.testing.assert_allclose(found.h, expected.h, rtol=1e-14)
    np.testing.assert_allclose(found.c, expected.c, rtol=1e-14)


def test_zoneout_is_the_library_s(carry, key):
    cell = lstm(2, 3)
    params, x = cell.init(key), jnp.concatenate([X, jnp.linspace(0, 1, 6)])
    expected, h = zoneout(cell, rate=0.5, sampled=True).step(params, carry, x)
    found, output = networks.zoned(cell).step({"cell": params, "rate": 0.5}, carry, x)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(output, h)


def test_a_normalised_input_has_no_mean_and_no_scale(carry, key):
    cell = lstm(2, 3)
    params = cell.init(key)
    found, _ = networks.normalised_input(cell).step(params, carry, 7 + 100 * X)
    expected, _ = cell.step(params, carry, jnp.asarray([1.0, -1.0]))
    np.testing.assert_allclose(found.h, expected.h, atol=1e-6)


def test_without_noise_the_lstm_is_left(dataset):
    plain = dataset.log_norm.sel(net="lstm")
    np.testing.assert_allclose(dataset.log_norm_zoneout.sel(zoneout=0), plain, atol=1e-7)
    for kind in ("variational", "per step"):
        found = dataset.log_norm_dropout.sel(kind=kind, dropout=0)
        np.testing.assert_allclose(found, plain, atol=1e-7)
    at_half = dataset.log_norm_dropout.sel(dropout=0.5)
    assert not np.allclose(at_half.sel(kind="per step"), at_half.sel(kind="variational"))


def test_norms_are_of_the_run_after_the_warm_up(dataset):
    config = quick()
    cell = lstm(config.input_size, config.hidden_size)
    params, x = one_run(dataclasses.replace(config, num_steps=24), cell, 2)

    @jax.jit
    def end(carry, x):
        return jax.lax.scan(lambda s, x: cell.step(params, s, x), carry, x)[0]

    warm = end(cell.initial_carry(), x[:8])
    jacobian = jax.jacobian(end)(warm, x[8:]).h.h
    found = dataset.log_norm.sel(net="lstm", lag=16)[2]
    np.testing.assert_allclose(found, np.log(np.linalg.norm(jacobian, 2)), atol=1e-6)


def test_the_batch_normalised_net_and_its_gradient(dataset):
    config = quick()
    cell = networks.batch_normalised(4, 6, 6)
    params, _ = one_run(config, cell, 4)
    x = measuring.warmed_inputs(config, config.batch_size * config.input_size, stream=1)[4]
    x = x.reshape(24, config.batch_size, config.input_size)

    def whitened(z):
        return (z - z.mean(0)) / jnp.sqrt(z.var(0) + 1e-5)

    @jax.jit
    def end(H, X):
        def step(H, X):
            A = whitened(H @ params["W_h"].T) + 0.1 * whitened(X @ params["W_x"].T)
            return jnp.tanh(A), None

        return jax.lax.scan(step, H, X)[0]

    warm = end(jnp.zeros((6, 6)), x[:8])
    u = jax.random.normal(jax.random.fold_in(jax.random.split(jax.random.key(0), 5)[4], 17), (36,))
    gradient = jax.jit(jax.grad(lambda H: end(H, x[8:]).ravel() @ u))(warm)
    found = dataset.log_adjoint.sel(input_factor=0.1, gamma=1.0, lag=16)[4]
    np.testing.assert_allclose(found, jnp.log(jnp.linalg.norm(gradient)), atol=1e-7)
    assert dataset.log_adjoint.sel(lag=0)[4, 0, 0] == pytest.approx(np.log(np.linalg.norm(u)))


def test_the_theory_of_batch_norm_has_its_limit_of_small_gamma():
    # tanh z ≈ z - z³/3: what is left is the share of the variance that h has.
    for share in (1.0, 0.1):
        limit = -0.5 * math.log(1 + share**2)
        assert networks.batch_theory(1e-3, share * 1e-3) == pytest.approx(limit, abs=1e-5)
    z = np.random.default_rng(0).normal(size=10**6) * math.hypot(1.5, 0.3)
    slopes, square = np.mean((1 - np.tanh(z) ** 2) ** 2), np.mean(np.tanh(z) ** 2)
    expected = math.log(1.5) + 0.5 * math.log(slopes / square)
    assert networks.batch_theory(1.5, 0.3) == pytest.approx(expected, abs=5e-3)


def record_of(within, between, per_step, zoned, by_gamma):
    """A record with these growths a step, of plain nets at -0.2 and with little noise."""
    lag, noise = np.arange(41), 1 + 0.001 * np.arange(-2, 3)[:, None]

    def curves(rate):
        return rate * noise * lag

    nets = {
        "lstm": -0.2,
        "lstm_layer_norm": within,
        "gru": -0.2,
        "gru_layer_norm": within,
        "stack": -0.2,
        "stack_between": between,
        "stack_within": within,
    }
    adjoint = np.stack([np.stack([curves(rate) for rate in by_gamma], 1)] * 2, 1)
    dropout = np.stack([np.stack([curves(-0.2), curves(rate)], 1) for rate in (-0.2, per_step)])
    zoneout = np.stack([curves(-0.2), curves(zoned)], 1)
    return xarray.Dataset(
        {
            "log_norm": (("net", "run", "lag"), np.stack([curves(rate) for rate in nets.values()])),
            "log_norm_dropout": (("kind", "run", "dropout", "lag"), dropout),
            "log_norm_zoneout": (("run", "zoneout", "lag"), zoneout),
            "log_adjoint": (("run", "input_factor", "gamma", "lag"), adjoint),
            "theory": (("input_factor", "gamma"), np.zeros((2, len(by_gamma)))),
        },
        coords={
            "net": list(nets),
            "kind": ["variational", "per step"],
            "dropout": [0.0, 0.5],
            "zoneout": [0.0, 0.5],
            "input_factor": [1.0, 0.1],
            "gamma": [0.1, 0.5, 1.0],
            "lag": lag,
        },
    )


def test_the_claims_are_decided_by_the_paired_differences():
    def of(*record):
        return verdicts(EXPERIMENT.claims(record_of(*record)))

    found = of(-0.1, -0.21, -0.3, -0.1, (-0.1, -0.2, -0.3))
    assert len(found) == 8 and set(found.values()) == {"supported"}
    found = of(-0.3, -0.15, -0.1, -0.3, (-0.2, -0.1, -0.3))
    assert set(found.values()) == {"not supported"}
    found = of(-0.3, -0.21, -0.3, -0.1, (-0.1, -0.2, -0.3))
    failed = {name for name, verdict in found.items() if verdict == "not supported"}
    assert failed == {"layer-norm-lstm", "layer-norm-gru", "layer-norm-stack"}
    found = of(-0.2, -0.22, -0.3, -0.1, (-0.1, -0.2, -0.3))
    assert found["layer-norm-lstm"] == found["layer-norm-between"] == "inconclusive"


def test_the_summary_has_the_difference():
    summary = EXPERIMENT.summary(record_of(-0.1, -0.21, -0.3, -0.1, (-0.1, -0.2, -0.3)))
    row = next(line for line in summary.splitlines() if line.startswith("layer-norm-lstm"))
    assert "-0.2000" in row and "-0.1000  +0.1000 [+0.0998, +0.1002]" in row


def test_bad_configurations_are_refused():
    with pytest.raises(ValueError, match=r"Expected rates in \[0, 1\), got dropout=\(1.0,\)"):
        normalisation.run(quick(dropout=(1.0,)))
    with pytest.raises(ValueError, match=r"Expected gammas in ascending order, got \(1.0, 0"):
        normalisation.run(quick(gammas=(1.0, 0.5)))
