"""The papers that train: formulas in float64, errors, and resumption from checkpoints."""

import engelken2023
import hochreiter1997
import jax
import jax.numpy as jnp
import le2015
import numpy as np
import pascanu2013_order
import pytest
import xarray
from _training import first_below, last, trained

from gradflow.cells import rnn
from gradflow.tasks import resolve_task
from gradflow.train import Schedule, Training, begin, resolve_optimiser, resolve_regulariser
from gradflow.unroll import unroll


def test_omega_equals_equation_9():
    measured, exact = pascanu2013_order.omegas(seed=3)
    assert exact > 1e-3
    np.testing.assert_allclose(measured, exact, rtol=1e-12)


@pytest.mark.parametrize(
    ("init", "rates", "verdicts"),
    [
        ("basic", (0.0, 0.0, 1.0), ("reproduced", "reproduced")),
        ("basic", (0.0, 0.2, 0.6), ("qualitatively reproduced", "reproduced")),
        ("basic", (0.0, 0.4, 0.8), ("reproduced", "not reproduced")),
        ("basic", (0.0, 0.0, 0.0), ("not reproduced", "not reproduced")),
        ("smart", (0.0, 0.6, 0.8), ("reproduced", "reproduced")),
        ("smart", (0.0, 0.0, 0.6), ("qualitatively reproduced", "not reproduced")),
    ],
)
def test_verdicts_on_temporal_order_follow_the_success_rates(init, rates, verdicts):
    solved = np.where(np.arange(5) < 5 * np.array(rates)[:, None] - 0.1, 1000.0, np.nan)
    record = xarray.Dataset(
        {"solved_at": (("init", "length", "method", "seed"), solved[None, None])},
        coords={
            "init": [init],
            "length": [100],
            "method": list(pascanu2013_order.THREE),
            "update": [0, 20000],
        },
    )
    found = pascanu2013_order.about_length(record, init, 100)
    assert tuple(claim.verdict for claim in found) == verdicts
    source = found[0].reference.source
    assert "20,000 updates here instead of 5 million" in source and "336,000" in source


def test_gradient_is_the_sum_of_its_temporal_components():
    """Pascanu's eq. 3 to 5, as explicit products: Σ_k ∂E/∂h_T (∂h_T/∂h_k) ∂⁺h_k/∂W_h."""
    n, T = 4, 6
    cell = rnn(2, n)
    params = cell.init(jax.random.key(0))
    x, v = jax.random.normal(jax.random.key(1), (T, 2)), jnp.arange(1.0, n + 1)
    found = jax.grad(lambda W: v @ unroll(cell, {**params, "W_h": W}, x).outputs[-1])(params["W_h"])
    W, h = np.asarray(params["W_h"]), np.asarray(unroll(cell, params, x).outputs)
    before, transport, total = np.vstack([np.zeros(n), h[:-1]]), np.eye(n), np.zeros((n, n))
    for k in range(T - 1, -1, -1):
        slope = 1 - h[k] ** 2
        total += np.outer(np.asarray(v) @ transport * slope, before[k])
        transport = transport @ (slope[:, None] * W)
    np.testing.assert_allclose(found, total, rtol=1e-12)


def test_a_condition_number_must_fall_in_every_network():
    """σ_1/σ_16 of three networks before and after, and of the one network with k = 75."""
    logs = np.full((2, 3, 2, 75), np.nan)  # count, seed, when, index
    falls = np.log(10) * np.array([[5.0, 4.0, 3.0], [2.0, 2.0, 2.5]]).T  # (seed, when)
    logs[0, :, :, 0], logs[0, :, :, 15] = 0.0, -falls
    logs[1, 0, :, 0], logs[1, 0, :, 74] = 0.0, -np.log(10) * np.array([52.0, 5.0])

    def verdicts(logs):
        record = xarray.Dataset(
            {"log_singular": (("count", "seed", "when", "index"), logs)}, coords={"count": [16, 75]}
        )
        claims = [engelken2023.about_condition(record, k, engelken2023.FALLS[k]) for k in (16, 75)]
        assert [len(claim.measured) for claim in claims] == [5, 3]  # two medians, each network
        return [claim.verdict for claim in claims]

    assert verdicts(logs) == ["reproduced", "reproduced"]
    logs[0, 2, 1, 15] = -np.log(10) * 3.5  # the third network gets worse
    assert verdicts(logs) == ["not reproduced", "reproduced"]


def test_flossing_loss_is_the_regulariser_of_the_library():
    config = engelken2023.Config(units=5, num_steps=20, num_exponents=(3,), epochs=1)
    found = engelken2023.floss(config, 3, 0)
    k_params, k_inputs, _ = jax.random.split(jax.random.fold_in(jax.random.key(0), 0), 3)
    cell = engelken2023.driven(5)
    inputs = engelken2023.signal(jax.random.split(k_inputs, 1)[0], 20)
    regulariser = resolve_regulariser("flossing(num_exponents=3, burn_in=15)")
    value = regulariser(cell, cell.init(k_params), inputs[:, None], lambda outputs: jnp.zeros(()))
    np.testing.assert_allclose(np.mean(found.exponents.values[0] ** 2), value, rtol=1e-9)


def test_unknown_choices_are_refused():
    with pytest.raises(ValueError, match="Unknown init 'clever'"):
        pascanu2013_order.run(pascanu2013_order.Config(init=("clever",)))
    with pytest.raises(ValueError, match="Unknown method 'ADAM'"):
        pascanu2013_order.run(pascanu2013_order.Config(method=("ADAM",)))
    with pytest.raises(ValueError, match="Unknown cell 'lru'"):
        le2015.run(le2015.Config(cell=("lru",), num_steps=10))
    with pytest.raises(ValueError, match="Unknown problem 'parity'"):
        hochreiter1997.run(hochreiter1997.Config(problem=("parity",)))


def test_last_value_and_first_update_below_a_bound():
    loss = xarray.DataArray(
        [[0.9, 0.5, 0.2, np.nan], [0.9, 0.8, 0.7, 0.6]],
        dims=("seed", "update"),
        coords={"update": [0, 10, 20, 30]},
    )
    np.testing.assert_array_equal(last(loss), [0.2, 0.6])
    np.testing.assert_array_equal(first_below(loss, 0.6), [10, np.inf])


def test_killed_training_resumes_and_stops_when_enough(tmp_path):
    task = resolve_task("adding(num_steps=10)")
    training = Training(rnn(2, 3), task, resolve_optimiser("adam"), batch_size=4, eval_size=8)
    schedule = Schedule(60, 10, early_stop=False)

    def go(folder, stop):
        runs = begin(training, jax.random.split(jax.random.key(0), 2), jnp.full(2, 0.01))
        stopped = lambda progress: progress.update >= stop  # noqa: E731
        options = {"folder": folder, "identity": {"a": 1}, "enough": stopped}
        return trained(training, runs, schedule, **options)[0]

    killed = go(tmp_path, 20)
    assert (
        np.isfinite(killed.loss.values[:, :3]).all() and np.isnan(killed.loss.values[:, 3:]).all()
    )
    xarray.testing.assert_identical(go(tmp_path, 40), go(None, 40))
