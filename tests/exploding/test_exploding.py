"""The study of exploding gradients: its theory, its sweep, its record and its verdicts."""

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray
from studies import load_part, one_run, verdicts

from gradflow import flow
from gradflow.cells import resolve, rnn

exploding, measuring, networks, results = (
    load_part(f"exploding.{part}") for part in ("study", "measuring", "networks", "results")
)
EXPERIMENT = exploding.EXPERIMENT


def quick(**given):
    return EXPERIMENT.resolve(given, quick=True)


def initialised(cell, config, run, count=None):
    """Parameters and inputs of one run, of as many as there are seeds or so many."""
    given = config if count is None else dataclasses.replace(config, num_seeds=count)
    params, inputs = one_run(given, cell, run)
    return params, 0.1 * inputs


def test_an_orthogonal_linear_net_grows_by_the_gain():
    cell = networks.scaled("linear", 2, 5)
    init = rnn(2, 5, recurrent_init="orthogonal").init
    params = jax.vmap(init)(jax.random.split(jax.random.key(1), 2))
    gains = jnp.asarray([0.3, 1.0, 2.5])
    exponents = measuring.exponents_by_gain(cell, gains, params, jnp.ones((2, 12, 2)), 3)
    np.testing.assert_allclose(exponents, np.log([gains, gains]), atol=1e-12)


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_a_gain_is_that_of_every_recurrent_matrix(name, key):
    cell = resolve(networks.NETS[name].spec)(2, 3)
    params = cell.init(key)
    larger = jax.tree_util.tree_map_with_path(
        lambda path, leaf: 1.7 * leaf if path[-1].key == "W_h" else leaf, params
    )
    carry = jax.tree.map(lambda leaf: leaf + jnp.asarray([0.3, -0.6, 0.9]), cell.initial_carry())
    x = jnp.asarray([0.5, -1.0])
    scaled = networks.scaled(name, 2, 3)

    def step_and_slope(cell, params):
        slope = jax.grad(lambda s: jnp.sum(cell.step(params, s, x)[1] ** 3))(carry)
        return cell.step(params, carry, x), slope

    expected = jax.jit(partial(step_and_slope, cell))(larger)
    found = jax.jit(partial(step_and_slope, scaled))({"cell": params, "gain": 1.7})
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), found, expected)


def test_the_sweep_is_the_library_s_exponent_of_a_net_that_was_scaled(dataset):
    config = quick()
    cell = resolve(networks.NETS["tanh"].spec)(config.input_size, config.hidden_size)
    params, inputs = initialised(cell, config, 3)
    gain = dataset.gain.values[6]
    scaled = params | {"W_h": gain * params["W_h"]}
    expected = flow.lyapunov_exponents(cell, scaled, inputs, num_exponents=1, burn_in=10)
    found = dataset.exponent.sel(cell="tanh", gain=gain, run=3)
    np.testing.assert_allclose(found, expected.exponents[0], rtol=1e-9)


def test_a_size_of_the_extrapolation_is_a_net_of_that_size(dataset):
    config = quick()
    cell = resolve(networks.NETS["tanh"].spec)(config.input_size, 8)
    params, inputs = initialised(cell, config, 2)
    gain = dataset.ratio.values[4] * float(dataset.critical.sel(cell="tanh"))
    scaled = params | {"W_h": gain * params["W_h"]}
    expected = flow.lyapunov_exponents(cell, scaled, inputs, num_exponents=1, burn_in=10)
    found = dataset.sized_exponent.sel(cell="tanh", size=8).isel(run=2, ratio=4)
    np.testing.assert_allclose(found, expected.exponents[0], rtol=1e-9)


def test_the_gradient_and_the_loss_recorded_are_those_of_autodiff(dataset):
    config = quick()
    cell = resolve(networks.NETS["tanh"].spec)(config.input_size, config.hidden_size)
    gain = 1.5 * float(dataset.critical.sel(cell="tanh"))

    def last(h, params, x):
        for x_t in x:
            h = jnp.tanh(gain * params["W_h"] @ h + params["W_x"] @ x_t)
        return h

    params, inputs = initialised(cell, config, 12, config.num_draws)
    sum_of_last = lambda h: jnp.sum(last(h, params, inputs)) / 4  # noqa: E731  √16
    gradient = jax.grad(sum_of_last)(jnp.zeros(16))
    found = dataset.log_gradient.sel(cell="tanh", factor=1.5)[12]
    np.testing.assert_allclose(found, jnp.log(jnp.linalg.norm(gradient)), atol=1e-9)
    params, inputs = initialised(cell, config, 4)
    on_line = dataset.sel(factor=1.5).isel(run=4)
    middle = config.num_points // 2
    loss = 0.5 * jnp.mean((last(jnp.zeros(16), params, inputs) - 0.5) ** 2)
    np.testing.assert_allclose(on_line.loss[middle], loss, rtol=1e-9)


def test_the_slope_is_that_of_the_loss_on_the_line():
    config = quick(num_points=41, line_width=1e-3, factors=(0.8,), num_seeds=1)
    line = measuring.measure_line(config).isel(run=0, factor=0)
    by_differences = np.gradient(line.loss.values, line.place.values)
    np.testing.assert_allclose(line.slope[1:-1], by_differences[1:-1], rtol=1e-4)


def test_theory_of_the_plain_nets():
    gains = np.array([0.5, 1.3, 2.0])
    for name, expected in (("linear", np.log(gains)), ("relu", np.log(gains / math.sqrt(2)))):
        net = networks.NETS[name]
        found = [net.exponent(gain, 0.1) for gain in gains]
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert net.exponent(net.critical(0.1), 0.1) == pytest.approx(0, abs=1e-6)
    tanh = networks.NETS["tanh"]
    assert tanh.exponent(tanh.critical(0.5), 0.5) == pytest.approx(0, abs=1e-5)
    # A wide layer with a matrix of its own at every step is what the theory is about.
    n, gain, rng = 400, 1.8, np.random.default_rng(0)
    h, u, logs = rng.normal(size=n), rng.normal(size=n), []
    for _ in range(60):
        W = gain * rng.normal(size=(n, n)) / math.sqrt(n)
        h = np.tanh(W @ h + 0.5 * rng.normal(size=n))
        u = (1 - h**2) * (W @ u)
        logs.append(np.log(np.linalg.norm(u)))
    assert tanh.exponent(gain, 0.5) == pytest.approx((logs[-1] - logs[9]) / 50, abs=0.015)


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_theory_of_the_gated_nets_is_their_jacobian_at_rest(name):
    net = networks.NETS[name]
    cell = resolve(net.spec)(2, 3)
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: 0.7 * jnp.eye(3) if path[-1].key == "W_h" else leaf,
        cell.init(jax.random.key(0)),
    )
    rest = cell.initial_carry()
    jacobian = jax.jacobian(lambda s: cell.step(params, s, jnp.zeros(2))[0])(rest)
    blocks = jacobian if name == "gru" else jnp.block([[*row] for row in jacobian])
    radius = np.abs(np.linalg.eigvals(blocks)).max()
    assert net.exponent(0.7, 0.1) == pytest.approx(math.log(radius), abs=1e-12)
    assert net.exponent(net.critical(0.1), 0.1) == pytest.approx(0, abs=1e-12)
    assert math.isnan(net.exponent(net.critical(0.1) + 0.01, 0.1))


def test_statistics_of_tails_and_slopes():
    assert results.log_excess(np.log([1.0, 1.0, 1.0, 97.0])) == pytest.approx(math.log10(25))
    assert results.log_excess(np.array([0.0, 0.0, 5000.0])) > 2000  # beyond any float
    np.testing.assert_allclose(results.roughness(np.array([[1.0, -100.0, 1.0]])), [2.0])


def record_of(shift, sigma, peak):
    """A record of a net with its crossing at 1 + shift, log-normal tails and a slope's peak."""
    rng = np.random.default_rng(0)
    gain = np.linspace(0.5, 2, 61)
    sizes = np.array([100, 400])  # critical gains that are 20 units over N above their limit
    critical = 1 + shift + 20 / sizes
    exponents = np.tile(np.log(gain / critical[:, None, None]), (1, 1, 5, 1))
    slopes = np.ones((5, 2, 9))
    slopes[:, 1, 4] = peak
    return xarray.Dataset(
        {
            "sized_exponent": (("cell", "size", "run", "ratio"), exponents),
            "critical": ("cell", [1.0]),
            "log_gradient": (("cell", "factor", "draw"), sigma * rng.normal(size=(1, 2, 400))),
            "slope": (("run", "factor", "place"), slopes),
        },
        coords={"cell": ["linear"], "size": sizes, "ratio": gain, "factor": [0.8, 1.5]},
    )


def test_the_claims_are_decided_by_the_record():
    def of(*record):
        return list(verdicts(EXPERIMENT.claims(record_of(*record))).values())

    assert of(0.05, 3.0, 50.0) == ["supported"] * 3
    assert of(0.2, 3.0, 50.0) == ["not supported", "supported", "supported"]
    assert of(0.05, 0.1, 5.0) == ["supported", "not supported", "not supported"]
    assert of(9.0, 3.0, 50.0) == ["inconclusive", "supported", "supported"]  # no crossing
    assert list(verdicts(EXPERIMENT.claims(record_of(0.05, 3.0, 50.0)))) == [
        "critical-gain-linear",
        "heavy-tail-linear",
        "rough-loss",
    ]


def test_the_summary_has_the_critical_gain():
    record = record_of(0.05, 3.0, 50.0)
    gain = results.critical_gain_of(record.sel(cell="linear"))
    assert gain.value == pytest.approx(1.05, abs=2e-3)
    at_sizes = results.critical_gains(record.sel(cell="linear"))
    np.testing.assert_allclose(at_sizes[0], [1.25, 1.1], atol=2e-3)
    alone = record.sel(cell="linear").isel(size=[1])
    assert results.critical_gain_of(alone).value == pytest.approx(1.1, abs=2e-3)
    assert f"{gain:.3f}" in EXPERIMENT.summary(record)
    assert "nan" in EXPERIMENT.summary(record_of(9.0, 3.0, 50.0))


def test_bad_configurations_are_refused():
    with pytest.raises(
        ValueError, match="Unknown network of this study 'tahn'. Did you mean 'tanh'"
    ):
        exploding.run(quick(cells=("tahn",)))
    with pytest.raises(ValueError, match="Expected burn_in below num_steps=30, got 30. Lower"):
        exploding.run(quick(burn_in=30))
