"""The laws of the initial weights, each by its definition."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradflow.cells import gru, gru_reset_before, lstm
from gradflow.initializers import (
    INITIALIZERS,
    glorot,
    identity,
    lecun,
    normal,
    orthogonal,
    per_gate,
    resolve_initializer,
    scaled_identity,
)

FLOAT = jnp.float64


def draw(init, *shape, seed=0):
    matrix = init(jax.random.key(seed), shape, FLOAT)
    assert matrix.shape == shape and matrix.dtype == FLOAT
    return np.asarray(matrix)


@pytest.mark.parametrize("gain", [1.0, 0.3, 2.5])
@pytest.mark.parametrize("shape", [(6, 6), (4, 7), (7, 4), (1, 1)])
def test_orthogonal_has_all_singular_values_at_the_gain(shape, gain):
    W = draw(orthogonal(gain), *shape)
    gram = W @ W.T if shape[0] <= shape[1] else W.T @ W
    np.testing.assert_allclose(gram, gain**2 * np.eye(min(shape)), atol=1e-12)


def test_orthogonal_is_uniform_in_sign_and_rotation():
    # Haar's law: the mean of Q is 0 and the mean of its squared entries 1/n; a QR whose signs
    # are not mended has a positive or negative diagonal throughout.
    keys = jax.random.split(jax.random.key(0), 2000)
    Q = np.asarray(jax.vmap(lambda key: orthogonal()(key, (3, 3), FLOAT))(keys))
    np.testing.assert_allclose(Q.mean(axis=0), 0, atol=5 / math.sqrt(3 * 2000))
    np.testing.assert_allclose((Q**2).mean(axis=0), 1 / 3, atol=5 * 0.3 / math.sqrt(2000))
    assert abs(np.linalg.det(Q).mean()) < 5 / math.sqrt(2000)


@pytest.mark.parametrize("gain", [1.0, 0.25])
def test_identity_is_the_scaled_identity(gain):
    np.testing.assert_array_equal(draw(identity(gain), 5, 5), gain * np.eye(5))


def test_scaled_identity_is_a_small_one():
    np.testing.assert_array_equal(
        draw(resolve_initializer("scaled_identity"), 3, 3), np.eye(3) / 100
    )
    spec = "scaled_identity(gain=0.5)"
    np.testing.assert_array_equal(draw(resolve_initializer(spec), 3, 3), np.eye(3) / 2)


def test_identity_needs_a_square_matrix():
    with pytest.raises(ValueError, match=r"a square matrix .* got shape \(3, 4\). Use it for"):
        draw(identity(), 3, 4)


@pytest.mark.parametrize("gain", [1.0, 0.5])
def test_glorot_is_uniform_up_to_its_bound(gain):
    W = draw(glorot(gain), 60, 240)
    bound = gain * math.sqrt(6 / (60 + 240))
    assert 0.999 * bound < abs(W).max() <= bound
    assert abs(W.mean()) < 5 * bound / math.sqrt(3 * W.size)
    assert abs((W**2).mean() / bound**2 - 1 / 3) < 5 * math.sqrt(4 / 45 / W.size)


@pytest.mark.parametrize("gain", [1.0, 0.5])
def test_lecun_has_the_variance_of_its_inputs(gain):
    W = draw(lecun(gain), 60, 240)  # 240 inputs: the shape is (outputs, inputs)
    std = gain / math.sqrt(240)
    assert abs(W.mean()) < 5 * std / math.sqrt(W.size)
    assert abs((W**2).mean() / std**2 - 1) < 5 * math.sqrt(2 / W.size)
    # Cut at two standard deviations of the normal law before the cut, which is wider.
    assert 2.2 * std < abs(W).max() < 2 * std / 0.87962566 + 1e-12


@pytest.mark.parametrize(
    "init, std", [(normal(), 1 / 16), (normal(1.5), 1.5 / 16), (normal(std=0.3), 0.3)]
)
def test_normal_has_its_standard_deviation_and_is_not_cut(init, std):
    W = draw(init, 64, 256)
    assert abs(W.mean()) < 5 * std / math.sqrt(W.size)
    assert abs((W**2).mean() / std**2 - 1) < 5 * math.sqrt(2 / W.size)
    assert abs((W**4).mean() / std**4 - 3) < 5 * math.sqrt(96 / W.size)
    assert abs(W).max() > 3 * std


@pytest.mark.parametrize("radius", [0.95, 2.0])
def test_normal_of_a_radius_has_it_exactly(radius):
    init = normal(radius=radius)
    for seed in range(3):
        W = draw(init, 12, 12, seed=seed)
        np.testing.assert_allclose(abs(np.linalg.eigvals(W)).max(), radius, rtol=1e-12)


def test_normal_of_a_radius_is_the_same_under_jit_and_vmap_and_in_float32():
    init = normal(radius=0.9)
    keys = jax.random.split(jax.random.key(0), 3)
    each = np.stack([init(key, (5, 5), FLOAT) for key in keys])
    by_vmap = jax.jit(jax.vmap(lambda key: init(key, (5, 5), FLOAT)))(keys)
    np.testing.assert_allclose(by_vmap, each, rtol=1e-12)
    W = init(keys[0], (5, 5), jnp.float32)
    assert W.dtype == jnp.float32
    np.testing.assert_allclose(abs(np.linalg.eigvals(W)).max(), 0.9, rtol=1e-5)


def test_normal_of_a_radius_needs_a_square_matrix():
    with pytest.raises(
        ValueError, match=r"Expected a square matrix for a spectral radius, got shape \(3, 4\)"
    ):
        draw(normal(radius=0.9), 3, 4)


@pytest.mark.parametrize("name", sorted(INITIALIZERS))
def test_an_initialiser_is_a_function_of_its_key(name):
    init = INITIALIZERS[name]()
    np.testing.assert_array_equal(draw(init, 5, 5), draw(init, 5, 5))
    differs = not np.array_equal(draw(init, 5, 5), draw(init, 5, 5, seed=1))
    assert differs is (name not in ("identity", "scaled_identity"))
    assert init(jax.random.key(0), (5, 5), jnp.float32).dtype == jnp.float32


@pytest.mark.parametrize("factory", [lstm, gru, gru_reset_before])
@pytest.mark.parametrize("matrix", ["W_h", "W_x"])
def test_every_gate_has_a_matrix_of_its_own(key, factory, matrix):
    params = factory(5, 5, input_init="orthogonal").init(key)
    drawn = [p[matrix] for p in params.values()]
    drawn += [p["W_x" if matrix == "W_h" else "W_h"] for p in params.values()]
    for i, W in enumerate(drawn):
        np.testing.assert_allclose(W @ W.T, np.eye(5), atol=1e-12)
        for other in drawn[:i]:
            assert abs(W - other).max() > 0.1


def test_an_initialiser_is_found_by_name_with_options_or_given_itself():
    ours = resolve_initializer("normal(radius=0.5)")
    np.testing.assert_array_equal(draw(ours, 4, 4), draw(normal(radius=0.5), 4, 4))
    zeros = jax.nn.initializers.zeros
    assert resolve_initializer(zeros) is zeros


def test_one_initialiser_serves_all_gates_or_each_has_its_own():
    every = per_gate("identity", "rz")
    assert list(every) == ["r", "z"]
    np.testing.assert_array_equal(draw(every["z"], 3, 3), np.eye(3))
    each = per_gate({"z": "identity(gain=0.5)", "r": glorot(0.1)}, "rz")
    np.testing.assert_array_equal(draw(each["z"], 3, 3), 0.5 * np.eye(3))
    np.testing.assert_array_equal(draw(each["r"], 3, 3), draw(glorot(0.1), 3, 3))


@pytest.mark.parametrize("make", [orthogonal, identity, scaled_identity, glorot, lecun, normal])
def test_a_gain_that_is_no_positive_number_is_refused(make):
    for gain in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"Expected gain to be positive, got {gain}"):
            make(gain)


@pytest.mark.parametrize("name", ["std", "radius"])
def test_a_size_of_normal_that_is_not_positive_is_refused(name):
    with pytest.raises(ValueError, match=f"Expected {name} to be positive, got -0.5"):
        normal(**{name: -0.5})


@pytest.mark.parametrize(
    "spec, message",
    [
        ("ortogonal", r"Unknown initialiser 'ortogonal'. Did you mean 'orthogonal'\?"),
        (
            "glorot(std=2.0)",
            "Unknown option 'std' of initialiser 'glorot'. Known: gain",
        ),
        (
            "normal(std=1.0, radius=1.0)",
            r"Expected one of gain, std and radius, got \['radius', 'std'\]",
        ),
        ("glorot(gain=-2.0)", "Expected gain to be positive, got -2.0"),
    ],
)
def test_a_wrong_initialiser_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        resolve_initializer(spec)


@pytest.mark.parametrize("gates", ["r", "rzn"])
def test_a_mapping_names_every_gate_and_no_other(gates):
    with pytest.raises(ValueError, match=r"each of the gates \['r', 'z'\], got them"):
        per_gate(dict.fromkeys(gates, "identity"), "rz")
