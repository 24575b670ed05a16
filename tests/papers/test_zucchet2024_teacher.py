"""The linear teacher and its students: eigenvalues, responses, the loss of a batch, updates."""

import itertools

import _linear_systems
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray
import zucchet2024_teacher as paper

from gradflow import study, unroll
from gradflow.train.model import predict

NUS = (0.36, 0.99)


@pytest.fixture
def quick(quick_run):
    return quick_run("zucchet2024_teacher")


def dense(teacher):
    """The teacher as a model whose cell is the dense student."""
    readout = np.append(teacher.C, teacher.D)[None]
    cell = {"W_h": teacher.A, "W_x": teacher.B[:, None], "b": np.zeros(len(teacher.B))}
    return jax.tree.map(jnp.asarray, {"cell": cell, "readout": {"W": readout, "b": np.zeros(1)}})


@pytest.mark.parametrize("nu_0", NUS)
def test_the_teacher_has_the_paper_s_moduli_and_the_matrix_s_angles(nu_0):
    raw = np.random.default_rng(7).standard_normal((10, 10)) / np.sqrt(10)
    before, after = (
        np.linalg.eigvals(m) for m in (raw, _linear_systems.sample_teacher(7, nu_0)[0].A)
    )
    moved = (nu_0 + (1 - nu_0) * np.tanh(abs(before))) * before / abs(before)
    distances = abs(after[:, None] - moved[None])
    assert distances.min(axis=0).max() < 1e-12 and distances.min(axis=1).max() < 1e-12
    assert abs(after).min() >= nu_0


def test_the_teacher_itself_has_loss_zero():
    T, teacher = 30, _linear_systems.sample_teacher(1, 0.9)[0]
    g = _linear_systems.response(teacher, T)
    cell, M = _linear_systems.student("RNN", 10), _linear_systems.expected_correlations(T)
    assert abs(_linear_systems.loss(cell, jnp.asarray(g), M, dense(teacher))) < 1e-24
    silent = jax.tree.map(jnp.zeros_like, dense(teacher))
    assert _linear_systems.loss(cell, jnp.asarray(g), M, silent) > 0.1


def test_the_loss_is_that_of_the_outputs_on_the_batch():
    """The quadratic form of the impulse response, and its gradient, against running the student."""
    T, size = 12, 7
    teacher, other = (_linear_systems.sample_teacher(seed, 0.8)[0] for seed in (1, 2))
    cell, x = _linear_systems.student("RNN", 10), jax.random.normal(jax.random.key(0), (T, size))
    g = jnp.asarray(_linear_systems.response(teacher, T))

    def by_outputs(params):
        outputs = [predict(cell, p, x[..., None]) for p in (params, dense(teacher))]
        return jnp.mean((outputs[0] - outputs[1]) ** 2) / 2

    M = _linear_systems.correlations(x)
    found = jax.value_and_grad(lambda p: _linear_systems.loss(cell, g, M, p))(dense(other))
    wanted = jax.value_and_grad(by_outputs)(dense(other))
    assert wanted[0] > 0.1
    # Only without biases, which training leaves at zero, is the output a convolution.
    for tree in (found[1], wanted[1]):
        del tree["readout"]["b"], tree["cell"]["b"]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), found, wanted
    )


def test_the_expected_loss_is_that_of_the_covariances():
    """E (y - y*)² at every step, from the covariance of both states: P <- M P Mᵀ + N Nᵀ."""
    T, teacher, other = 12, *(_linear_systems.sample_teacher(seed, 0.8)[0] for seed in (1, 2))
    zero = np.zeros((10, 10))
    M = np.block([[teacher.A, zero], [zero, other.A]])
    N, c = np.append(teacher.B, other.B), np.append(-teacher.C, other.C)
    P, total = np.zeros((20, 20)), 0.0
    for _ in range(T):
        P = M @ P @ M.T + np.outer(N, N)
        skip = other.D - teacher.D
        total += c @ P @ c + 2 * skip * (c @ N) + skip**2
    cell, g = _linear_systems.student("RNN", 10), jnp.asarray(_linear_systems.response(teacher, T))
    x = jax.random.normal(jax.random.key(0), (T, 20000))
    moments = _linear_systems.expected_correlations(T), _linear_systems.correlations(x)
    for M, rtol in zip(moments, (1e-12, 0.03), strict=True):
        found = _linear_systems.loss(cell, g, M, dense(other))
        np.testing.assert_allclose(found, total / (2 * T), rtol=rtol)


@pytest.mark.parametrize("name", paper.RATES)
def test_a_student_answers_an_impulse_by_powers_of_its_matrix(name):
    units, nu_0, T = 4, 0.5, 6
    params = _linear_systems.initialise_student(name, units, nu_0, np.random.default_rng(0))
    cell, W = params["cell"], params["readout"]["W"][0]
    if "W_h" in cell:
        A = cell["W_h"]
        if A.ndim == 3:
            A = np.zeros((2 * len(A), 2 * len(A)))
            for i, block in enumerate(cell["W_h"]):
                A[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = block
        B, C = cell["W_x"][:, 0], W[:-1]
        assert len(A) == (8 if name == "more neurons" else 4)
    else:
        if name == "LRU":
            A = np.exp(-np.exp(cell["nu"]) + 1j * np.exp(cell["theta"]))
            B = (cell["W_x"]["re"] + 1j * cell["W_x"]["im"])[:, 0] * np.exp(cell["gamma"])
            np.testing.assert_allclose(np.exp(2 * cell["gamma"]), 1 - abs(A) ** 2)
        else:
            A = cell["lambda"][0] + 1j * cell["lambda"][1]
            B = (cell["W_x"][0] + 1j * cell["W_x"][1])[:, 0] * cell.get("gamma", 1.0)
            assert ("gamma" in cell) == (name == "with γ")
        assert (abs(A) >= nu_0).all() and (abs(A) < 1).all()
        A, C = np.diag(A), W[:4] - 1j * W[4:8]
    wanted, h = [], B
    for _ in range(T):
        wanted.append((C @ h).real)
        h = A @ h
    wanted[0] += W[-1]
    cell, params = _linear_systems.student(name, units), jax.tree.map(jnp.asarray, params)
    found = _linear_systems.impulse_response(cell, params, T)
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12)
    x = jax.random.normal(jax.random.key(0), (T, 1))
    carries = unroll(cell, params["cell"], x).carries
    np.testing.assert_array_equal(carries.x[1:], x)


def test_updates_are_adam_with_a_cosine_schedule_without_biases():
    rate, N = 0.01, 10
    params = {"cell": {"W_h": jnp.ones(3), "b": jnp.zeros(3)}}
    transform = paper.adam(N, rate)
    state, sizes = transform.init(params), []
    for _ in range(N + 1):
        gradient = jax.tree.map(lambda leaf: jnp.full_like(leaf, 1e-3), params)
        steps, state = transform.update(gradient, state, params)
        assert (steps["cell"]["b"] == 0).all()
        sizes.append(-float(steps["cell"]["W_h"][0]))
    shape = 0.5 * (1 + np.cos(np.pi * np.arange(N + 1) / N))
    np.testing.assert_allclose(sizes, 1e-7 + (rate - 1e-7) * shape, rtol=1e-4)


def test_a_killed_training_resumes_with_the_same_losses(tmp_path, monkeypatch):
    config = paper.EXPERIMENT.resolve({}, quick=True)
    whole = paper.train(config, "LRU", 0.36, None)
    fit = paper.fit

    def killed(*arguments, **options):
        yield from itertools.islice(fit(*arguments, **options), 3)
        raise KeyboardInterrupt

    monkeypatch.setattr(paper, "fit", killed)
    with pytest.raises(KeyboardInterrupt):
        paper.train(config, "LRU", 0.36, tmp_path)
    monkeypatch.setattr(paper, "fit", fit)
    xarray.testing.assert_identical(paper.train(config, "LRU", 0.36, tmp_path), whole)
    assert whole.loss.sizes == {"rate": config.num_rates, "seed": 2, "update": 5}
    assert np.isfinite(whole.loss[:, :, 1:]).all() and np.isnan(whole.loss[:, :, 0]).all()
    # All learning rates begin with the same network and see the same batches.
    one = paper.EXPERIMENT.resolve({"num_updates": 4}, quick=True)
    first = paper.train(one, "LRU", 0.36, None).loss.isel(update=1).values
    np.testing.assert_allclose(first, first[:1] * np.ones((config.num_rates, 1)), rtol=1e-12)


def test_the_best_rate_has_the_least_mean_and_no_diverged_run():
    loss = np.ones((2, 3, 2, 2))
    loss[0, :, :, 1] = [[0.1, np.nan], [0.2, 0.4], [0.3, 0.5]]
    loss[1, :, :, 1] = [[0.9, 0.8], [0.7, 0.6], [np.nan, np.nan]]
    found = paper.finals(
        xarray.Dataset(
            {
                "loss": (("case", "rate", "seed", "update"), loss),
                "learning_rate": (("case", "rate"), [[1.0, 2.0, 3.0], [4.0, 5.0, np.nan]]),
                "student": ("case", ["RNN", "LRU"]),
                "nu_0": ("case", [0.9, 0.9]),
            }
        )
    )
    np.testing.assert_allclose(found["mean"], [0.3, 0.65])
    np.testing.assert_allclose(found["error"], [0.1, 0.05])
    np.testing.assert_array_equal(found.rate, [2, 5])


def test_the_quick_run_learns_and_meets_its_exact_claims(quick):
    assert quick.loss.dims == ("case", "rate", "seed", "update")
    ends = paper.finals(quick)["mean"].values
    assert (ends < quick.loss.isel(update=1).min(("rate", "seed")).values * 1.5).all()
    claims = paper.claims(quick)
    assert [c.reason for c in claims if c.exact and c.verdict != "reproduced"] == []
    with study.figure.style():
        assert len(paper.figure(quick).axes) == 3


def test_invalid_configurations_are_reported():
    for change, message in (
        ({"ablated": ("GRU",)}, "student 'GRU'"),
        ({"nus": (0.5, 1.0)}, "Expected ν_0 below 1, got 1"),
        ({"num_updates": 30}, "multiple of num_evaluations=20, got 30"),
    ):
        with pytest.raises(ValueError, match=message):
            paper.run(paper.Config(**change))
