import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradflow.train.optimisers import OPTIMISERS, check_learning_rate, resolve_optimiser

PARAMS = {"W": jnp.array([[1.0, -2.0], [0.5, 3.0]])}


def three_steps(transformation: optax.GradientTransformation) -> jax.Array:
    params, state = PARAMS, transformation.init(PARAMS)
    for _ in range(3):
        updates, state = transformation.update(jax.tree.map(jnp.tanh, params), state, params)
        params = optax.apply_updates(params, updates)
    return params["W"]


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_traced_rate_gives_what_optax_gives_at_a_number(name):
    make = resolve_optimiser(name).make
    rates = jnp.array([0.1, 0.02])
    swept = jax.vmap(lambda rate: three_steps(make(rate)))(rates)
    for rate, params in zip(rates, swept, strict=True):
        expected = three_steps(OPTIMISERS[name](float(rate)))
        np.testing.assert_allclose(params, expected, rtol=1e-12)
        assert not np.allclose(params, PARAMS["W"])


def test_tiny_gradients_move_the_parameters_as_far_as_large_ones():
    """The first update by the papers' equations: epsilon is outside of the square root."""
    g = {"W": jnp.array([[1e-6, -3e-8], [1.0, 0.0]])}
    size = abs(g["W"])
    expected = {
        "rmsprop": 0.1 * g["W"] / (jnp.sqrt(0.1) * size + 1e-8),
        "adam": 0.1 * g["W"] / (size + 1e-8),  # both averages are corrected to those of g itself
        "rmsprop(eps_in_sqrt=True)": 0.1 * g["W"] / jnp.sqrt(0.1 * size**2 + 1e-8),
    }
    for spec, move in expected.items():
        transformation = resolve_optimiser(spec).make(0.1)
        updates, _ = transformation.update(g, transformation.init(PARAMS), PARAMS)
        np.testing.assert_allclose(updates["W"], -move, rtol=1e-9)


def test_momentum_sums_gradients_before_the_learning_rate():
    transformation = resolve_optimiser("sgd(momentum=0.9)").make(0.1)
    state = transformation.init(PARAMS)
    for expected in (0.1, 0.19, 0.271):
        updates, state = transformation.update(jax.tree.map(jnp.ones_like, PARAMS), state, PARAMS)
        np.testing.assert_allclose(updates["W"], -expected, rtol=1e-12)


def test_options_reach_optax():
    optimiser = resolve_optimiser("sgd(learning_rate=0.5, momentum=0.9)")
    assert optimiser.learning_rate == 0.5
    expected = three_steps(optax.sgd(0.5, momentum=0.9))
    np.testing.assert_allclose(three_steps(optimiser.make(0.5)), expected, rtol=1e-14)
    assert resolve_optimiser("rmsprop").learning_rate == 1e-3


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("adma", "Unknown optimiser 'adma'. Did you mean 'adam'"),
        (
            "adam(momentum=0.9)",
            "'momentum' of optimiser 'adam'. Known: learning_rate",
        ),
        ("adam(b1='x')", r"Optimiser \"adam\(b1='x'\)\" failed: "),
        ("adam(learning_rate=0)", "Expected learning_rate to be positive, got 0"),
        ("adam(0.1)", "Expected options by keyword"),
    ],
)
def test_bad_specs_are_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        resolve_optimiser(spec)


def test_a_learning_rate_is_a_finite_number_above_zero():
    assert check_learning_rate(1) == 1.0
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="Expected learning_rate to be positive, got"):
            check_learning_rate(bad)
    for bad in ("0.1", True):
        with pytest.raises(TypeError, match="Expected learning_rate to be a number, got"):
            check_learning_rate(bad)
