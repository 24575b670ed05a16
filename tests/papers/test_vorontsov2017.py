"""The factorised RNN: the bound of a margin, the updates of U and V, the measured gradient."""

import math

import _margins
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import vorontsov2017
import xarray

from gradflow import study
from gradflow.train.probes import Probing, probe

N, LAG = 5, 6
QUICK = {**vorontsov2017.EXPERIMENT.quick, "hidden_size": N, "lag": LAG, "precision": "float64"}


@pytest.fixture(scope="module")
def quick():
    return vorontsov2017.run(vorontsov2017.Config(**QUICK))


def test_at_margin_0_the_gradient_keeps_its_norm(quick):
    logs = quick.log_norm.sel(margin="0")
    assert float((logs.max("step") - logs.min("step")).max()) < 1e-12
    np.testing.assert_allclose(quick.singular.sel(margin="0"), 1, atol=1e-12)
    free = quick.log_norm.sel(margin="none").isel(update=-1)
    assert float((free.max("step") - free.min("step")).min()) > 1e-4


def test_all_margins_start_from_the_same_networks(quick):
    np.testing.assert_allclose(quick.singular.isel(update=0), 1, atol=1e-12)
    for name in ("0.1", "none"):  # the same nets and sequences at every margin
        for values in (quick.log_norm, quick.loss):
            first = values.sel(margin=["0", name]).isel(update=0)
            np.testing.assert_allclose(first[0], first[1], rtol=1e-12)
    assert float(abs(quick.singular.sel(margin="none").isel(update=-1) - 1).max()) > 1e-4


def test_the_claims_and_figures_of_a_quick_run(quick):
    found = {claim.id: claim for claim in vorontsov2017.claims(quick)}
    assert {id for id, claim in found.items() if claim.exact} == {"fig4-bound", "fig3-orthogonal"}
    assert all(claim.verdict == "reproduced" for claim in found.values() if claim.exact)
    assert found["fig3-margin-none"].verdict == "not reproduced"  # after 20 updates
    with study.figure.style():
        shapes = [len(draw(quick).axes) for draw in vorontsov2017.EXPERIMENT.figures.values()]
    assert shapes == [1, 4, 2]  # three panels and a colour bar in the map


def test_the_probe_is_the_gradient_by_a_perturbation_of_each_state():
    params = _margins.initialise(jax.random.key(0), N)
    params["p"] = jax.random.normal(jax.random.key(1), (N,))
    model = _margins.model(params, 0.5)
    task, key = _margins.of_last_step(_margins.scalar_copy(LAG)), jax.random.key(2)
    as_many = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (10, *leaf.shape)), model)
    found = probe(_margins.net(N), task, as_many, Probing(("adjoints",), key))["adjoints"][0]
    batch, (cell, readout) = task.sample(key, 4), (model["cell"], model["readout"])

    def loss(eps, inputs, target):
        h = jnp.zeros(N)
        for x, e in zip(inputs, eps, strict=True):
            h = cell["W_h"] @ h + cell["W_x"] @ x + cell["b"] + e
        return -jax.nn.log_softmax(readout["W"] @ h + readout["b"])[target]

    slope = jax.jit(jax.vmap(jax.grad(loss), in_axes=(None, 1, 0)))
    slopes = slope(jnp.zeros((LAG + 20, N)), batch.inputs, batch.targets[-1])
    norms = np.linalg.norm(slopes, axis=-1)
    np.testing.assert_allclose(found[1:], np.median(np.log(norms), axis=0), atol=1e-10)


def test_a_geodesic_stays_orthogonal_and_descends():
    Q = np.linalg.qr(np.random.default_rng(0).normal(size=(N, N)))[0]
    B = jnp.asarray(np.random.default_rng(1).normal(size=(N, N)))
    moved = _margins.geodesic(Q, B, 0.7)
    np.testing.assert_allclose(moved @ moved.T, np.eye(N), atol=1e-13)
    # f(Q) = <B, Q> has the slope B: along the way it falls by ‖A‖²/2, A = B Qᵀ - Q Bᵀ.
    along = jax.grad(lambda rate: jnp.sum(B * _margins.geodesic(Q, B, rate)))(0.0)
    np.testing.assert_allclose(along, -np.sum((B @ Q.T - Q @ B.T) ** 2) / 2, rtol=1e-12)


def test_the_margin_bounds_the_spectrum_but_not_its_speed():
    ends = jnp.array([-60.0, 0.0, 60.0])
    for margin in (0.0, 0.01, 1.0):
        found = _margins.spectrum(ends, margin)
        np.testing.assert_allclose(found, [1 - margin, 1, 1 + margin], atol=1e-15)
    np.testing.assert_allclose(_margins.spectrum(jnp.array([-2.0, 0.1]), math.inf), [0, 1.1])
    slope = jax.grad(lambda p, m: jnp.sum(_margins.spectrum(p, m)))
    for margin in (0.001, 0.1, 1.0):  # the slope of s by the rescaled p
        rescaled = slope(jnp.zeros(2), margin) * _margins.rescaling(jnp.asarray(margin))
        np.testing.assert_allclose(rescaled, 1 / 4, rtol=1e-12)
    np.testing.assert_array_equal(slope(jnp.zeros(2), math.inf), 1)
    assert [float(_margins.rescaling(jnp.asarray(m))) for m in (0.0, math.inf)] == [1, 1]


def test_the_recurrent_matrix_has_the_spectrum_of_its_factors():
    params = _margins.initialise(jax.random.key(0), N)
    params["p"] = jnp.arange(1.0, N + 1)
    W = _margins.model(params, 0.3)["cell"]["W_h"]
    wanted = sorted(_margins.spectrum(params["p"], 0.3), reverse=True)
    np.testing.assert_allclose(np.linalg.svd(W, compute_uv=False), wanted, rtol=1e-12)
    moved = W @ params["V"]  # W V = U S
    np.testing.assert_allclose(moved, params["U"] * _margins.spectrum(params["p"], 0.3), atol=1e-12)


def test_symbols_are_encoded_as_numbers():
    batch = _margins.scalar_copy(3).sample(jax.random.key(0), 2)
    np.testing.assert_array_equal(batch.inputs[:10, :, 0], batch.targets[-10:] + 1)
    np.testing.assert_array_equal(batch.inputs[10:, 0, 0], [0, 0, -1, *[0] * 10])


def test_verdicts_follow_the_order_of_the_margins():
    def dataset(*spreads):
        names = ["0", "0.1", "none"]
        logs = np.zeros((3, 1, 2, 4))
        logs[:, 0, 1, 0] = np.log(10) * np.array(spreads)
        singular = 1 + np.array(spreads)[:, None, None, None] * np.array([-0.01, 0.01])
        return xarray.Dataset(
            {
                "log_norm": (("margin", "seed", "update", "step"), logs),
                "accuracy": (("margin", "seed", "update"), logs[..., 0]),
                "singular": (("margin", "seed", "update", "index"), singular.repeat(2, axis=2)),
            },
            coords={"margin": names, "update": [0, 1000]},
        ).isel(margin=[2, 0, 1])

    def verdict(data, id):
        return {claim.id: claim for claim in vorontsov2017.claims(data)}[id].verdict

    for id in ("fig3-flat", "fig1-speed", "fig4-spread"):
        assert verdict(dataset(0.0, 0.5, 1.2), id) == "qualitatively reproduced"
        assert verdict(dataset(1.2, 0.5, 0.1), id) == "not reproduced"
    assert verdict(dataset(0.0, 0.5, 1.2), "fig3-margin-none") == "qualitatively reproduced"
    assert verdict(dataset(0.0, 0.5, 0.9), "fig3-margin-none") == "not reproduced"
    assert verdict(dataset(0.1, 0.5, 0.9), "fig3-orthogonal") == "not reproduced"


@pytest.mark.parametrize("name", ["2", "-0.1", "nan", "inf", "wide"])
def test_invalid_margins_are_reported(name):
    with pytest.raises(ValueError, match=f"Expected a margin from 0 to 1, or none, got .*{name}"):
        vorontsov2017.run(vorontsov2017.Config(margins=("0", name)))
