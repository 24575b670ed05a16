"""The study of parallel evaluation: its record, its number again by the library, its verdict."""

import jax
import numpy as np
from studies import load

from gradflow import study, unroll
from gradflow.cells import rnn

MODULE = load("parallel_in_time")
EXPERIMENT = MODULE.EXPERIMENT
FLAGS = ["--quick", "--num_steps=40", "--hidden_size=5", "--gains=0.4,6", "--num_seeds=2"]
SECONDS = ["scan_seconds", "newton_seconds"]


def test_the_same_command_gives_the_same_bits_but_for_the_clock(folders):
    one, two = (study.read_dataset(f / "result.nc") for f in folders)
    assert one.drop_vars(SECONDS).identical(two.drop_vars(SECONDS))
    assert all(bool((one[name] > 0).all()) for name in SECONDS)
    assert (folders[0] / "figure.png").stat().st_size > 10_000


def test_iterations_and_exponent_are_those_of_newton_s_method_in_numpy(dataset):
    k_params, k_inputs = jax.random.split(jax.random.key(0))
    cell = rnn(4, 5, recurrent_init="normal(gain=1)")
    params = cell.init(jax.random.split(k_params, 2)[1])
    w = 0.4 * np.asarray(params["W_h"])
    x = 0.1 * np.asarray(jax.random.normal(k_inputs, (2, 40, 4)))[1] @ np.asarray(params["W_x"]).T
    s, moved, jacobian = np.zeros((41, 5)), [], np.eye(5)
    for _ in range(12):
        new, delta = np.tanh(s[:-1] @ w.T + x), np.zeros(5)
        old = s.copy()
        for t in range(40):  # the linearised equations one after the other
            delta = (1 - new[t] ** 2)[:, None] * w @ delta + new[t] - old[t + 1]
            s[t + 1] += delta
        moved.append(np.abs(s - old).max())
    assert int(dataset.iterations[0, 1]) == sum(m > 1e-8 for m in moved)
    for t in range(40):
        jacobian = (1 - s[t + 1] ** 2)[:, None] * w @ jacobian
    rate = np.log(np.linalg.norm(jacobian, 2)) / 40
    np.testing.assert_allclose(dataset.exponent[0, 1], rate, atol=0.1)
    scanned = unroll(cell, params | {"W_h": w}, 0.1 * jax.random.normal(k_inputs, (2, 40, 4))[1])
    np.testing.assert_allclose(scanned.carries, s, atol=1e-14)


def test_the_verdict_is_read_from_the_numbers(dataset):
    shape = dataset.exponent.shape
    made = {
        "exponent": np.array([[-0.5, -0.4], [0.2, 0.3]]),
        "iterations": np.array([[2, 3], [40, 40]]),
        "converged": np.array([[1, 1], [0, 0]]),
        "error": np.array([[1e-12, 1e-12], [1.0, 1.0]]),
    }
    as_claimed = dataset.assign({name: (("gain", "run"), value) for name, value in made.items()})
    assert as_claimed.exponent.shape == shape
    summary = EXPERIMENT.summary
    assert "parallelised: supported" in summary(as_claimed)
    for name, value in (
        ("iterations", [[2, 9], [40, 40]]),
        ("iterations", [[2, 3], [9, 9]]),
        ("converged", [[1, 1], [0, 1]]),
        ("error", [[1e-12, 1e-6], [1, 1]]),
    ):
        changed = as_claimed.assign({name: (("gain", "run"), np.array(value))})
        assert "parallelised: not supported" in summary(changed)
    assert "undecided" in summary(as_claimed.isel(gain=[0]))
