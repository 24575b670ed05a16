"""The study of parallel evaluation: its record, its number again by the library, its verdict."""

import numpy as np
from studies import load, one_run, verdicts

from gradflow import unroll
from gradflow.cells import rnn

MODULE = load("parallel_in_time")
EXPERIMENT = MODULE.EXPERIMENT
FLAGS = ["--quick", "--num_steps=40", "--hidden_size=5", "--gains=0.4,6", "--num_seeds=2"]


def test_a_run_measures_seconds(dataset):
    assert all(bool((dataset[name] > 0).all()) for name in ("scan_seconds", "newton_seconds"))


def test_iterations_and_exponent_are_those_of_newton_s_method_in_numpy(dataset):
    cell = rnn(4, 5, recurrent_init="normal(gain=1)")
    given = {"num_steps": 40, "hidden_size": 5, "num_seeds": 2}
    params, inputs = one_run(EXPERIMENT.resolve(given, quick=True), cell, 1)
    w = 0.4 * np.asarray(params["W_h"])
    x = 0.1 * np.asarray(inputs) @ np.asarray(params["W_x"]).T
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
    scanned = unroll(cell, params | {"W_h": w}, 0.1 * inputs)
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
    assert set(verdicts(EXPERIMENT.claims(as_claimed)).values()) == {"supported"}
    for name, value, failed in (
        ("iterations", [[2, 9], [40, 40]], "few-iterations-below"),
        ("iterations", [[2, 3], [9, 9]], "many-iterations-above"),
        ("converged", [[1, 1], [0, 1]], "lost-above"),
        ("error", [[1e-12, 1e-6], [1, 1]], "exact-below"),
    ):
        changed = as_claimed.assign({name: (("gain", "run"), np.array(value))})
        found = verdicts(EXPERIMENT.claims(changed))
        assert [name for name, verdict in found.items() if verdict == "not supported"] == [failed]
    found = verdicts(EXPERIMENT.claims(as_claimed.isel(gain=[0])))
    assert list(found.values()) == ["supported", "supported", "inconclusive", "inconclusive"]
