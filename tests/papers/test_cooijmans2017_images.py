"""The gradient through a batch-normalised RNN, by independent routes."""

import struct

import cooijmans2017_images as paper
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradflow import flow, study


@pytest.fixture(scope="module")
def dataset(quick_run):
    return quick_run("cooijmans2017_images")


def test_step_equals_a_numpy_reference():
    """N is over the batch, of W_h h + W_x x, and γ multiplies its result."""
    rng = np.random.default_rng(0)
    H, W_h, W_x, x = rng.normal(size=(5, 3)), rng.normal(size=(3, 3)), rng.normal(size=3), [
        0.0, 0.5, 1.0, 0.2, 0.9,
    ]  # fmt: skip
    params = {"W_h": jnp.asarray(W_h), "W_x": jnp.asarray(W_x)[:, None], "gamma": 0.7}
    found = paper.batch_normalised(3, 5).step(params, jnp.asarray(H), jnp.asarray(x))[0]
    z = np.array([[W_h[i] @ H[b] + W_x[i] * x[b] for i in range(3)] for b in range(5)])
    wanted = np.tanh(0.7 * (z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5))
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_adjoints_equal_finite_differences(dataset):
    """∂L/∂h_0 of one unit of one image, at the largest γ, and the norms by two routes."""
    config = paper.EXPERIMENT.resolve({}, quick=True)
    keys = jax.random.split(jax.random.key(config.seed), config.num_seeds)
    one = paper.sample(config, keys[0], paper.images(config))
    cell = paper.batch_normalised(config.hidden_size, config.batch_size)
    params = one["params"] | {"gamma": jnp.asarray(1.0)}
    inputs = one["inputs"][:3]

    @jax.jit
    def loss(carry):
        H, _ = jax.lax.scan(lambda H, x: cell.step(params, H, x), carry, inputs)
        return paper.cross_entropy(one["W_y"], one["labels"], H.ravel()[None])

    def difference(i, j):
        shift = jnp.zeros_like(one["carry"]).at[i, j].set(1e-5)
        return float(loss(one["carry"] + shift) - loss(one["carry"] - shift)) / 2e-5

    found = jax.grad(loss)(one["carry"])
    for i, j in ((0, 0), (3, 5)):
        np.testing.assert_allclose(found[i, j], difference(i, j), rtol=1e-4, atol=1e-9)
    by_flow = flow.adjoints(
        cell,
        params,
        inputs,
        loss=lambda h: paper.cross_entropy(one["W_y"], one["labels"], h),
        carry=one["carry"],
    )
    np.testing.assert_allclose(by_flow[0], found, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(dataset.norm[0], dataset.by_perturbation, rtol=1e-8)


def test_gradient_of_two_clusters_falls_by_2γ_over_sinh_2γ_per_step():
    """A closed form where each unit has half of the images at tanh γ and half at -tanh γ."""
    gamma, n, size = 0.8, 4, 12
    signs = np.sign(np.arange(size) - size / 2 + 0.5)
    rng = np.random.default_rng(1)
    clusters = np.stack([rng.permutation(signs) for _ in range(n)], axis=1)
    run = {
        "params": paper.batch_normalised(n, size).init(jax.random.key(0)),
        "W_y": jax.random.normal(jax.random.key(1), (paper.NUM_CLASSES, n)),
        "labels": jnp.arange(size) % paper.NUM_CLASSES,
        "carry": jnp.asarray(np.tanh(gamma) * clusters),
        "inputs": jnp.zeros((8, size)),
    }
    norms = np.asarray(paper.mean_norms(paper.batch_normalised(n, size), run, jnp.asarray(gamma)))
    # At step T the gradient still has components along the mean and the clusters; N removes them.
    wanted = np.full(6, 2 * gamma / np.sinh(2 * gamma))
    np.testing.assert_allclose(norms[:-2] / norms[1:-1], wanted, rtol=1e-4)


def test_claims_of_known_norms(dataset):
    T = dataset.sizes["time"]
    falls = np.array([0.5, 2.0, 5.0])[:, None] * np.linspace(
        1, 0, T
    )  # orders of magnitude lost, by γ and t
    known = dataset.assign(norm=dataset.norm * 0 + 10.0**-falls)
    np.testing.assert_allclose(paper.orders_lost(known), [[0.5, 2, 5]] * 2, rtol=1e-12)
    verdicts = {claim.id: claim.verdict for claim in paper.claims(known)}
    assert verdicts["fig1a-ends"] == verdicts["fig1a-order"] == "qualitatively reproduced"
    assert verdicts["fig1a-gradient"] == "not reproduced"  # the norms are not those of the network
    orders = [
        paper.claims(known.assign(norm=known.norm[:, at].assign_coords(gamma=known.gamma)))[-1]
        for at in ([1, 0, 2], [0, 2, 1])
    ]
    # The first γ, 0.1, is below the smallest of the claim.
    assert [order.verdict for order in orders] == ["qualitatively reproduced", "not reproduced"]
    assert [number.value for number in orders[0].measured] == [2.0, 0.5, 5.0]
    assert paper.claims(known.isel(gamma=[1]))[-1].verdict == "not reproduced"  # nothing to order


def test_mnist_is_read_and_named_in_figure_and_claims(tmp_path):
    rng = np.random.default_rng(0)
    for name, shape in (("images-idx3", (20, 2, 3)), ("labels-idx1", (20,))):
        head = struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape)
        body = rng.integers(0, 10, shape, dtype=np.uint8).tobytes()
        (tmp_path / f"train-{name}-ubyte").write_bytes(head + body)
    given = {"data": "mnist", "data_dir": str(tmp_path), "gammas": (0.5,), "num_seeds": 1}
    found = paper.run(paper.EXPERIMENT.resolve(given, quick=True))
    assert found.sizes["time"] == 6 and np.isfinite(found.norm).all()
    with study.figure.style():
        assert "sequential MNIST" in paper.figure(found).axes[0].get_title(loc="left")
    assert "sequential MNIST" in paper.claims(found)[1].reference.source


def test_gammas_must_ascend():
    with pytest.raises(ValueError, match="Expected gammas in ascending order, got .*1.0, 0.1"):
        paper.run(paper.Config(gammas=(1.0, 0.1)))
