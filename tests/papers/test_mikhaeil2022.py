"""Reconstruction of the Lorenz flow: flow, forcing and distances against other computations."""

import _forcing
import _lorenz
import _maps
import jax
import jax.numpy as jnp
import mikhaeil2022 as paper
import numpy as np
import pytest

from gradflow import flow


@pytest.fixture
def dataset(quick_run):
    return quick_run("mikhaeil2022")


@pytest.fixture(scope="module")
def flow_of_300():
    return _lorenz.orbit(300)


def test_the_flow_equals_numpy_s(flow_of_300):
    """The library's step against one written out by itself; both of fourth order."""
    s = flow_of_300[:5]
    for _ in range(_lorenz.SUBSTEPS):
        s = _lorenz.numpy_step(s, _lorenz.DT / _lorenz.SUBSTEPS)
    np.testing.assert_allclose(s, flow_of_300[1:6], rtol=1e-10)
    dt = np.array([0.02, 0.01])
    start = np.array([[1.0, 2.0, 20.0]])
    exact = start
    for _ in range(64):
        exact = _lorenz.numpy_step(exact, 0.04 / 64)
    errors = []
    for step in dt:
        s = start
        for _ in range(round(0.04 / step)):
            s = _lorenz.numpy_step(s, step)
        errors.append(np.abs(s - exact).max())
    assert 12 < errors[0] / errors[1] < 20  # 2⁴


def test_histograms_of_known_fractions_have_the_divergence_in_closed_form():
    a = np.array([[0.1, 0.1, 0.1]] * 3 + [[1.1, 0.1, 0.1]])
    b = np.array([[0.1, 0.1, 0.1]] * 2 + [[1.1, 0.1, 0.1]] * 2)
    assert _lorenz.state_space_distance(a, a) == 0
    wanted = 0.75 * np.log(0.75 / 0.5) + 0.25 * np.log(0.25 / 0.5)
    np.testing.assert_allclose(_lorenz.state_space_distance(b, a), wanted, atol=1e-3)
    away = np.full((4, 3), 9.0)
    lost = np.where([[True, False, False]], np.nan, a)
    far = np.log((4 + 1e-5) / 1e-5)  # all of a's shares lie where nothing is but the smoothing
    for gone in (away, lost):
        np.testing.assert_allclose(
            _lorenz.state_space_distance(gone, a),
            0.75 * np.log(0.75) + 0.25 * np.log(0.25) + far,
            rtol=0.01,
        )


def test_spectra_of_waves_have_their_distance_in_closed_form(flow_of_300):
    assert _lorenz.hellinger(np.array([0.5, 0.5, 0]), np.array([0.5, 0.5, 0])) == 0
    np.testing.assert_allclose(
        _lorenz.hellinger(np.array([1.0, 0]), np.array([0.36, 0.64])), np.sqrt(0.4)
    )
    t = np.arange(500.0)
    slow, fast = (np.stack([np.sin(2 * np.pi * f * t)] * 3, axis=1) for f in (0.01, 0.2))
    assert _lorenz.spectral_distance(slow, 3 * slow + 1) < 1e-6  # neither size nor mean counts
    assert _lorenz.spectral_distance(slow, fast) > 0.99
    # Two gaussian bumps of width σ, d apart, overlap by exp(-d²/8σ²); 0.01 apart is 5 places.
    near = np.stack([np.sin(2 * np.pi * 0.21 * t)] * 3, axis=1)
    wanted = np.sqrt(1 - np.exp(-(5**2) / (8 * _lorenz.SIGMA**2)))
    np.testing.assert_allclose(_lorenz.spectral_distance(near, fast), wanted, atol=0.01)
    assert _lorenz.spectral_distance(np.full((300, 3), np.nan), flow_of_300) == 1
    assert _lorenz.spectral_distance(np.ones((300, 3)), flow_of_300) == 1


def by_hand(name, params, xs, interval):
    """x̂_1 ... x̂_T of one sequence by the equations, with NumPy's pseudo-inverse."""
    B, made = np.asarray(params["B"]), []
    for t, x in enumerate(xs):
        if t % interval == 0:
            h, c = np.linalg.pinv(B) @ x, 0.0
        p = {k: jax.tree.map(np.asarray, v) for k, v in params["cell"].items()}
        if name == "plrnn":
            A = np.diag(p["AW"])
            h = A * h + (p["AW"] - np.diag(A)) @ np.maximum(h, 0) + p["h"]
        elif name == "rnn":
            h = np.tanh(p["W_h"] @ h + p["b"])
        else:
            a = {q: p[q]["W_h"] @ h + p[q]["b"] for q in "ifgo"}
            i, f, o = (1 / (1 + np.exp(-a[q])) for q in "ifo")
            c = f * c + i * np.tanh(a["g"])
            h = o * np.tanh(c)
        made.append(B @ h)
    return np.array(made)


@pytest.mark.parametrize("name", _forcing.CELLS)
def test_forced_cells_follow_the_equations_and_their_gradient_is_cut(name, flow_of_300):
    cell, interval = _forcing.CELLS[name](4), 3
    params = {
        "cell": cell.init(jax.random.key(0)),
        "B": jax.random.normal(jax.random.key(1), (3, 4)),
    }
    xs = jnp.asarray(flow_of_300[:7] / 10)
    found = _forcing.predictions(cell, params, xs[:, None], jnp.asarray(interval))[:, 0]
    np.testing.assert_allclose(found, by_hand(name, params, np.asarray(xs), interval), rtol=1e-8)
    states = xs @ jnp.linalg.pinv(params["B"]).T
    flags = (jnp.arange(7) % interval == 0).astype(float)[:, None]
    inputs = jnp.concatenate([states, flags], axis=1)
    norms = flow.log_norms(
        _forcing.forced(cell), params["cell"], inputs, source="carry", target="carry"
    )
    # h_7 starts from the data: of what was before nothing is left.
    assert np.all(np.isneginf(norms[1:]))
    norms = flow.log_norms(_forcing.forced(cell), params["cell"], inputs[:6])
    assert np.all(np.isfinite(norms[:3])) and np.all(np.isneginf(norms[3:]))


def test_the_maps_of_the_theorems_have_their_exponents_in_closed_form(dataset):
    cycle, chaos = dataset.growth.values
    h = 0.9575040240772687  # tanh 2h = h
    np.testing.assert_allclose(dataset.rate[0], np.log(2 * (1 - h**2)), rtol=1e-12)
    np.testing.assert_allclose(cycle, np.arange(201) * np.log(2 * (1 - h**2)), rtol=1e-9)
    np.testing.assert_allclose(np.diff(chaos)[1:], np.log(1.8), atol=1e-9)
    largest = [
        flow.lyapunov_exponents(cell, params, jnp.zeros((400, 0)), burn_in=10, carry=carry)
        for cell, params, carry in _maps.maps()
    ]
    # The tent's tangent vector is (1, 0) or (1, 1), by the side on which chaos ends up.
    ends = np.log(2) / 390
    np.testing.assert_allclose([one.exponents[0] for one in largest], dataset.rate, atol=ends)


def test_a_killed_training_resumes_to_the_same_parameters(tmp_path, monkeypatch, flow_of_300):
    config = paper.EXPERIMENT.resolve({"cells": ("rnn",)}, quick=True)
    cell, data = _forcing.CELLS["rnn"](4), flow_of_300 / 10
    whole = paper.train(config, cell, data, None)
    half = paper.EXPERIMENT.resolve({"num_updates": 2}, quick=True)
    monkeypatch.setattr(paper, "identity", lambda config: {"all": "the same"})
    paper.train(half, cell, data, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, paper.train(config, cell, data, tmp_path), whole)
    # The runs without forcing differ by the size of their gradient alone.
    B = whole["B"].reshape(3, 2, 3, 4)
    assert np.all(np.isfinite(B)) and np.abs(B[1] - B[2]).max() > 1e-8


def test_verdicts_on_known_distances(dataset):
    assert float(dataset.exponents.sum()) == pytest.approx(-41 / 3, rel=1e-4)
    assert paper.predictable(dataset.assign(exponents=("exponent", [0.9, 0, -14.57]))) == (
        pytest.approx(np.log(2) / 0.9 / 0.025)
    )
    known = dataset.assign(exponents=("exponent", [4.0, 0, -17.67]))  # τ_pred = 6.9 of 2 and 8

    def verdict(*distances):
        measured = np.ones((2, 3, 2)) * np.reshape(distances, (3, 1))
        record = known.assign(state_space_distance=(("cell", "setting", "seed"), measured))
        return paper.claims(record)[-1].verdict

    assert verdict(3, 1, 2) == "qualitatively reproduced"
    assert verdict(1, 3, 4) == "not reproduced"  # it is least at 2, far from 6.9
    assert verdict(3, 2, 1) == "not reproduced"  # and less without forcing
    assert verdict(np.nan, np.nan, 1) == "not reproduced"


def test_invalid_configurations_are_reported():
    for given, message in (
        ({"cells": ("gru",)}, "Unknown cell 'gru'"),
        ({"intervals": (30, 5)}, "Expected intervals in ascending order, got .30, 5."),
        ({"num_steps": 100}, "Expected intervals of at most num_steps=100, got 150"),
        ({"num_updates": 700}, "Expected num_updates to be a multiple of chunk=500, got 700"),
    ):
        with pytest.raises(ValueError, match=message):
            paper.run(paper.Config(**given))
