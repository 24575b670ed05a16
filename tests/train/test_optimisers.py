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
        expected = three_steps(getattr(optax, name)(float(rate)))
        np.testing.assert_allclose(params, expected, rtol=1e-12)
        assert not np.allclose(params, PARAMS["W"])


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
