"""Derivatives in saturated units against mpmath, and what that makes of the measurements."""

import functools

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from gradflow import flow
from gradflow.cell import Cell
from gradflow.cells import gru, lstm
from gradflow.numerics.exact_slopes import exact_slopes
from gradflow.unroll import unroll

mpmath.mp.dps = 350
TINY = float(np.finfo(np.float64).tiny)
POSITIVE = np.concatenate([10.0 ** np.arange(-300, 0, 12), np.linspace(0.01, 700, 401)])
POINTS = np.concatenate([-POSITIVE[::-1], [0.0], POSITIVE])


def s(x):
    return 1 / (1 + mpmath.exp(-x))


def s_slope(x):
    return s(x) * s(-x)


def gaussian(x):
    return 2 / mpmath.sqrt(mpmath.pi) * mpmath.exp(-(x**2))


# Each function, its true slope, and the units of rounding by which JAX's may be off at x.
FUNCTIONS = {
    "tanh": (jnp.tanh, lambda x: mpmath.sech(x) ** 2, lambda x: 4),
    "logistic": (jax.nn.sigmoid, s_slope, lambda x: 4),
    "1 - logistic": (lambda x: 1 - jax.nn.sigmoid(x), lambda x: -s_slope(x), lambda x: 4),
    "1 - tanh": (lambda x: 1 - jnp.tanh(x), lambda x: -(mpmath.sech(x) ** 2), lambda x: 4),
    "expm1": (jnp.expm1, mpmath.exp, lambda x: 4),
    "1 + expm1": (lambda x: 1 + jnp.expm1(x), mpmath.exp, lambda x: 4),
    "erf": (jax.lax.erf, gaussian, lambda x: 4 + x**2),
    "erfc": (jax.lax.erfc, lambda x: -gaussian(x), lambda x: 4 + x**2),
    "softplus": (jax.nn.softplus, s, lambda x: 4 + abs(x)),
    "exp": (jnp.exp, mpmath.exp, lambda x: 4),
    "elu": (jax.nn.elu, lambda x: mpmath.exp(x) if x < 0 else mpmath.mpf(1), lambda x: 4),
    "silu": (jax.nn.silu, lambda x: s(x) + x * s_slope(x), lambda x: 8 + 4 * abs(x)),
}


def off(slopes, true, x, eps, tiny):
    """Units of rounding beside the true slope; below the normal numbers, whether it is one."""
    slope, true = mpmath.mpf(float(slopes)), true(mpmath.mpf(float(x)))
    if abs(true) < 8 * tiny:
        return 0 if 0 < abs(slope) <= 8 * tiny or true > 0 else np.inf
    return float(abs(slope - true) / abs(true) / eps)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_slopes_equal_mpmath_far_into_saturation(name):
    function, true, units = FUNCTIONS[name]
    exact = exact_slopes(function)
    one = jnp.ones_like(POINTS)
    forward = jax.jit(lambda x: jax.jvp(exact, (x,), (one,))[1])(POINTS)
    reverse = jax.jit(lambda x: jax.vjp(exact, x)[1](one)[0])(POINTS)
    for slopes in (forward, reverse):
        for slope, x in zip(slopes, POINTS, strict=True):
            if name == "exp" and x < -700:
                continue
            assert off(slope, true, x, 2**-52, TINY) <= units(x), x


@pytest.mark.parametrize("name", ["tanh", "logistic", "expm1", "1 - logistic"])
def test_slopes_in_float32_have_its_precision(name):
    function, true, units = FUNCTIONS[name]
    x = POINTS[np.abs(POINTS) < 80].astype(np.float32)
    slopes = jax.vmap(jax.grad(exact_slopes(function)))(x)
    assert slopes.dtype == jnp.float32
    tiny = float(np.finfo(np.float32).tiny)
    for slope, at in zip(slopes, x, strict=True):
        assert off(slope, true, at, 2**-23, tiny) <= 2 * units(at), at


@pytest.mark.parametrize("function", [jnp.tanh, jax.nn.sigmoid, jnp.expm1, jax.lax.erf])
def test_a_slope_is_zero_only_at_infinity(function):
    slope = jax.jit(jax.vmap(jax.grad(exact_slopes(function))))
    assert (np.asarray(slope(jnp.array([-1e5, -750.0, -720.0]))) >= TINY).all()
    assert slope(jnp.array([-jnp.inf]))[0] == 0
    assert np.isnan(slope(jnp.array([jnp.nan]))[0])
    assert slope(jnp.array([-50.0], jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("x", [-300.0, -40.0, -0.3, 0.0, 2.0, 40.0, 300.0])
def test_second_and_third_derivatives_are_not_rounded_to_zero_either(x):
    for function, true in ((jnp.tanh, mpmath.tanh), (jax.nn.sigmoid, s), (jax.lax.erf, mpmath.erf)):
        if function is jax.lax.erf and abs(x) > 20:
            continue
        second = jax.grad(jax.grad(exact_slopes(function)))
        for order, found in ((2, second), (3, jax.grad(second))):
            expected = float(mpmath.diff(true, x, order))
            np.testing.assert_allclose(found(x), expected, rtol=1e-12, atol=1e-300)


def scanned(x):
    return jax.lax.scan(lambda y, _: (jnp.tanh(y), jax.nn.sigmoid(y)), x, None, length=2)[1][0]


def looped(x):
    return jax.lax.while_loop(lambda y: y > 1, jax.nn.sigmoid, x)


def branched(x):
    return jax.lax.cond(x > 0, jax.nn.sigmoid, jnp.sin, x)


NESTED = {
    "jit": jax.jit(jax.nn.sigmoid),
    "remat": jax.checkpoint(jax.nn.sigmoid),
    "scan": scanned,
    "while": looped,
    "cond": branched,
    "vmap": lambda x: jax.vmap(jax.nn.sigmoid)(x[None])[0],
    "a tree": lambda x: {"a": (jax.nn.sigmoid(x), None)}["a"][0],
}


@pytest.mark.parametrize("name", NESTED)
def test_the_functions_are_found_wherever_they_stand_and_keep_their_values(name):
    exact = exact_slopes(NESTED[name])
    assert jax.jvp(NESTED[name], (40.0,), (1.0,))[1] == 0
    np.testing.assert_allclose(jax.jvp(exact, (40.0,), (1.0,))[1], np.exp(-40.0), rtol=1e-15)
    at = jnp.linspace(-50, 50, 401)
    np.testing.assert_array_equal(jax.vmap(exact)(at), jax.vmap(NESTED[name])(at))
    if name != "while":  # reverse mode does not go through it
        np.testing.assert_allclose(jax.grad(exact)(40.0), np.exp(-40.0), rtol=1e-15)


def test_a_custom_rule_is_kept():
    @jax.custom_jvp
    def straight_through(x):
        return jnp.tanh(x)

    straight_through.defjvp(lambda x, dx: (straight_through(*x), 7 * dx[0]))

    @jax.custom_vjp
    def clipped(x):
        return jnp.tanh(x)

    clipped.defvjp(lambda x: (clipped(x), None), lambda _, g: (5 * g,))
    both = exact_slopes(lambda x: straight_through(x) + jnp.tanh(x))
    np.testing.assert_allclose(jax.grad(both)(0.3), 7 + 1 / np.cosh(0.3) ** 2, rtol=1e-14)
    assert jax.grad(exact_slopes(lambda x: clipped(x) + jnp.tanh(2 * x - x)))(1e4) == 5 + TINY


def test_a_function_without_them_is_the_same_program():
    def linear(W, x):
        return jax.nn.relu(W @ x) + jnp.exp(x)

    given = jnp.eye(3), jnp.ones(3)
    traced = jax.make_jaxpr(exact_slopes(linear))(*given)
    assert str(traced) == str(jax.make_jaxpr(linear)(*given))


N, T, GAIN = 100, 60, 10.0


@functools.cache
def saturated():
    """x ← J tanh x, J ~ N(0, g²/N) at g = 10, its inputs, x_0, and log |det J_t| in closed form."""
    W = GAIN / np.sqrt(N) * np.random.default_rng(0).normal(size=(N, N))
    x_0 = jnp.asarray(GAIN * np.random.default_rng(1).normal(size=N))

    def step(params, x, _):
        x = params["W"] @ jnp.tanh(x)
        return x, x

    cell = Cell(lambda key: {"W": jnp.asarray(W)}, step, lambda: jnp.zeros(N))
    arguments = cell, cell.init(jax.random.key(0)), jnp.zeros((T, 0))
    x = np.abs(unroll(*arguments, carry=x_0).carries[:-1])
    log_slopes = np.log(4) - 2 * x - 2 * np.log1p(np.exp(-2 * x))
    log_det = np.linalg.slogdet(W)[1] + log_slopes.sum(axis=1)
    return arguments, x_0, log_det, log_slopes


@pytest.mark.parametrize("qr_every, time_reversed", [(None, False), (1, True)])
def test_all_exponents_of_a_saturated_network_are_finite_and_sum_to_the_mean_log_det(
    qr_every, time_reversed
):
    arguments, x_0, log_det, _ = saturated()
    found = flow.lyapunov_exponents(
        *arguments, carry=x_0, qr_every=qr_every, time_reversed=time_reversed
    )
    assert np.isfinite(found.exponents).all()
    np.testing.assert_allclose(found.exponents.sum(), log_det.mean(), rtol=1e-12)


def test_their_mean_is_ln_g_less_a_half_and_the_mean_log_slope():
    arguments, x_0, _, log_slopes = saturated()
    mean = flow.lyapunov_exponents(*arguments, carry=x_0).exponents.mean()
    # log |det| of a Gaussian matrix is N (ln g - 1/2) up to a few units in all.
    np.testing.assert_allclose(mean, np.log(GAIN) - 0.5 + log_slopes.mean(), atol=0.05)


def first_log_norm(cell, params, inputs, source):
    return flow.log_norms(cell, params, inputs, source=source, target=source)[1]


def test_an_lstm_with_its_forget_gate_far_open_keeps_the_path_through_it():
    """∂c/∂h, of which the path through f alone is left, is near e^-60 and not cut."""
    cell, x = lstm(1, 1), jnp.zeros((3, 1))
    zero = jax.tree.map(jnp.zeros_like, cell.init(jax.random.key(0)))
    params = zero | {"f": zero["f"] | {"W_h": jnp.ones((1, 1)), "b": jnp.full(1, 60.0)}}
    carry = cell.initial_carry()._replace(c=jnp.full(1, 2.0))
    found = flow.log_norms(cell, params, x, source="h", target="c", carry=carry)[1:]
    # c_t = f c_{t-1} with i g = 0: ∂c_t/∂h_{t-1} = s(a) s(-a) c_{t-1}, and h_t = tanh(c)/2.
    a = 60.0 + np.tanh(2.0) / 2
    np.testing.assert_allclose(found[0], np.log(2.0) - a, rtol=1e-14)
    shares = flow.components(cell, params, x, loss=lambda h: h[-1, 0], carry=carry)
    assert np.isfinite(shares["f"]["b"]).all()
    assert np.isfinite(flow.log_adjoint_norms(cell, params, x, loss=lambda h: h[-1, 0])).any()


def test_a_gru_that_is_shut_by_60_forgets_by_the_gate_that_is_left():
    """h_t = (1 - z) n + z h_{t-1}: with z = 1 to rounding, 1 - z is s(-a), and not 0."""
    exact = exact_slopes(lambda a, n: (1 - jax.nn.sigmoid(a)) * n)
    assert jax.grad(lambda a, n: (1 - jax.nn.sigmoid(a)) * n, 1)(60.0, 0.5) == 0
    np.testing.assert_allclose(jax.grad(exact, 1)(60.0, 0.5), np.exp(-60.0), rtol=1e-15)
    cell = gru(2, 4)
    step = exact_slopes(cell.step)
    given = cell.init(jax.random.key(0)), jnp.full(4, 0.1), jnp.ones(2)
    plain = jax.jacobian(lambda h: cell.step(given[0], h, given[2])[0])(given[1])
    exact = jax.jacobian(lambda h: step(given[0], h, given[2])[0])(given[1])
    np.testing.assert_allclose(exact, plain, rtol=1e-13)


def test_an_lstms_decomposition_keeps_its_paths():
    cell, x = lstm(1, 2), jnp.ones((4, 1))
    params = cell.init(jax.random.key(0))
    params["i"]["b"] = jnp.full(2, 60.0)
    norms = flow.decomposition_norms(cell, params, x)
    assert np.isfinite(norms.through_i[1:]).all()
    assert np.isfinite(flow.steps_by_path(cell, params, x).through_i).all()


def test_a_gradient_through_log_norms_has_the_exact_slopes_too():
    def norm(bias):
        def step(params, h, x):
            h = jnp.tanh(params * h + x)
            return h, h

        cell = Cell(lambda key: jnp.ones(1), step, lambda: jnp.zeros(1))
        return flow.log_norms(cell, jnp.ones(1), bias[None, None])[1]

    # ln sech²(x) falls by 2 a unit where x is large.
    np.testing.assert_allclose(jax.grad(norm)(jnp.asarray(50.0)), -2.0, rtol=1e-14)
    assert norm(jnp.asarray(50.0)) == pytest.approx(np.log(4) - 100.0, rel=1e-14)


def test_a_loss_that_saturates_still_has_a_gradient():
    cell = lstm(1, 2)
    params, x = cell.init(jax.random.key(0)), jnp.ones((3, 1))
    found = flow.log_adjoint_norms(cell, params, x, loss=lambda h: jnp.tanh(jnp.sum(h[-1]) + 50))
    plain = flow.log_adjoint_norms(cell, params, x, loss=lambda h: jnp.sum(h[-1]))
    scale = np.log(4) - 2 * (50 + float(unroll(cell, params, x).outputs[-1].sum()))
    np.testing.assert_allclose(found, plain + scale, rtol=1e-12)
