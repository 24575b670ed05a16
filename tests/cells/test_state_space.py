"""S4D and S5 against NumPy, their convolutions, the dense HiPPO system, and exact gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from oracle import assert_step_matches, random_state

from gradflow.cells.state_space import StateSpaceCarry, s4d, s5
from gradflow.unroll import unroll

T = 7
CELLS = pytest.mark.parametrize(
    "factory, options",
    [(s4d, {"discretization": "zoh"}), (s4d, {"discretization": "bilinear"}), (s5, {})],
)
BOTH = pytest.mark.parametrize("factory", [s4d, s5])


def discretised(method, A, dt):
    if method == "zoh":
        return np.exp(dt * A), (np.exp(dt * A) - 1) / A
    return (1 + dt * A / 2) / (1 - dt * A / 2), dt / (1 - dt * A / 2)


def pair(parts):
    return np.asarray(parts["re"]) + 1j * np.asarray(parts["im"])


def s4d_system(p, discretization="zoh"):
    """Ā, B̄ (hidden, state, input), C (hidden, hidden, state) and D (hidden, input)."""
    A = -np.exp(p["A_re"]) + 1j * np.asarray(p["A_im"])
    A_bar, B_bar = discretised(discretization, A, np.exp(p["log_dt"])[:, None])
    W_x, D = np.asarray(p["W_x"]), np.asarray(p["D"])
    return A_bar, B_bar[:, :, None] * W_x[:, None], pair(p["C"]), D[:, None] * W_x


def s5_system(p):
    A_bar, b = discretised("zoh", pair(p["Lambda"]), np.exp(p["log_dt"]))
    return A_bar, b[:, None] * pair(p["B"]), pair(p["C"]), np.asarray(p["D"])


SYSTEMS = {s4d: (s4d_system, "dn,dn->d"), s5: (s5_system, "n,dn->d")}


def reference(factory, options):
    """In real arithmetic on the carry, so that each part may itself take a complex step."""
    system, read = SYSTEMS[factory]

    def advance(p, carry, x):
        A, B, C, D = system(p, **options)
        re = A.real * carry.re - A.imag * carry.im + B.real @ x
        im = A.real * carry.im + A.imag * carry.re + B.imag @ x
        h = 2 * (np.einsum(read, re, C.real) - np.einsum(read, im, C.imag)) + D @ x
        return StateSpaceCarry(re, im, h)

    return advance


@CELLS
def test_step_equals_the_reference(factory, options):
    assert_step_matches(factory(3, 4, state_size=2, **options), reference(factory, options), 3)


@CELLS
def test_the_convolution_equals_the_recurrence(factory, options, key):
    cell = factory(3, 4, state_size=5, dt_min=0.1, dt_max=1.0, **options)
    params, _, _ = random_state(cell, 3)
    inputs = jax.random.normal(key, (T, 3))
    system, read = SYSTEMS[factory]
    A, B, C, D = system(params, **options)
    states, units = read.removesuffix("->d").split(",")
    kernel = [
        2 * np.einsum(f"{states}i,{units}->di", A[..., None] ** lag * B, C).real for lag in range(T)
    ]
    expected = [
        D @ inputs[t] + sum(kernel[lag] @ inputs[t - lag] for lag in range(t + 1)) for t in range(T)
    ]
    outputs = unroll(cell, params, inputs).outputs
    np.testing.assert_allclose(outputs, expected, rtol=1e-11, atol=1e-12)


@BOTH
def test_gradient_is_the_power_of_the_eigenvalue_and_h_is_read_only(factory, key):
    cell, lag = factory(2, 2, state_size=3), 300
    params = cell.init(key)
    inputs = jax.random.normal(key, (lag, 2))

    def last(carry):
        carries = unroll(cell, params, inputs, carry=carry).carries
        return jax.tree.map(lambda leaf: leaf[-1], carries)

    jacobian = jax.jacobian(last)(cell.initial_carry())
    power = np.ravel(SYSTEMS[factory][0](params)[0] ** lag)
    size = len(power)
    square = lambda block: np.reshape(block, (size, size))  # noqa: E731
    np.testing.assert_allclose(square(jacobian.re.re), np.diag(power.real), atol=1e-13)
    np.testing.assert_allclose(square(jacobian.re.im), np.diag(-power.imag), atol=1e-13)
    np.testing.assert_allclose(square(jacobian.im.re), np.diag(power.imag), atol=1e-13)
    np.testing.assert_allclose(square(jacobian.im.im), np.diag(power.real), atol=1e-13)
    assert not any(np.any(column.h) for column in jacobian)


@CELLS
def test_initial_eigenvalues_are_inside_of_the_unit_circle(factory, options, key):
    params = factory(2, 50, state_size=8, **options).init(key)
    radius = np.abs(SYSTEMS[factory][0](params, **options)[0])
    assert np.all(radius < 1) and radius.min() > 0.9


def test_eigenvalues_of_an_s4d_are_stable_for_any_parameters():
    cell = s4d(2, 3, state_size=4)
    params, _, _ = random_state(cell, 2)
    params["A_re"] = jnp.linspace(-20, 3, 12).reshape(3, 4)
    for method in ("zoh", "bilinear"):
        assert np.all(np.abs(s4d_system(params, method)[0]) < 1)


@pytest.mark.parametrize(
    "name, expected",
    [
        ("lin", [0, np.pi, 2 * np.pi]),
        # (N/π)(N/(2n + 1) - 1) for N = 6
        ("inv", [30 / np.pi, 6 / np.pi, 1.2 / np.pi]),
    ],
)
def test_initial_eigenvalues_of_an_s4d(name, expected, key):
    params = s4d(2, 4, state_size=3, state_init=name).init(key)
    np.testing.assert_allclose(params["A_im"], np.tile(expected, (4, 1)), rtol=1e-13)
    np.testing.assert_allclose(-np.exp(params["A_re"]), -0.5, rtol=1e-13)


def hippo_normal(size):
    """HiPPO-LegS plus its rank-one term, from the formula of the matrix itself."""
    A = np.array(
        [
            [
                -np.sqrt((2 * n + 1) * (2 * k + 1)) if n > k else -(n + 1.0) * (n == k)
                for k in range(size)
            ]
            for n in range(size)
        ]
    )
    P = np.sqrt(np.arange(size) + 0.5)
    return A + np.outer(P, P)


def test_an_initial_s5_is_the_real_hippo_system(key):
    """With B' = D = I and one Δ, the complex states are those of the dense system, rotated."""
    size, dt = 6, 0.3
    cell = s5(size, size, state_size=3, dt_min=dt, dt_max=dt, input_init="identity")
    params = cell.init(key)
    V = pair(params["B"]).conj().T
    A = hippo_normal(size)
    np.testing.assert_allclose(A @ V, V * pair(params["Lambda"]), atol=1e-12)
    inputs = jax.random.normal(key, (T, size))
    A_bar, s, expected = scipy.linalg.expm(dt * A), np.zeros(size), []
    for x in inputs:
        s = A_bar @ s + np.linalg.solve(A, (A_bar - np.eye(size)) @ x)
        expected.append(s + x)  # C' = D = I
    outputs = unroll(cell, params, inputs).outputs
    np.testing.assert_allclose(outputs, expected, rtol=1e-11, atol=1e-12)


def test_initial_output_weights_have_the_variances_of_the_paper(key):
    params = s4d(2, 400, state_size=20).init(key)
    np.testing.assert_allclose(np.mean(np.abs(pair(params["C"])) ** 2), 1, rtol=0.05)
    np.testing.assert_allclose(np.var(params["D"]), 1, rtol=0.2)


@BOTH
def test_the_step_of_a_tiny_time_step_keeps_its_digits(factory, key):
    with jax.enable_x64(False):
        cell = factory(1, 2, state_size=2, dt_min=1e-6, dt_max=1e-6)
        params = cell.init(key)
        carry, h = cell.step(params, cell.initial_carry(), jnp.ones(1))
    B = SYSTEMS[factory][0](jax.tree.map(np.float64, params))[1]
    assert h.dtype == carry.re.dtype == jnp.float32
    np.testing.assert_allclose(carry.re, B[..., 0].real, rtol=1e-5)


@BOTH
def test_states_are_as_many_as_wanted(factory):
    shape = (4, 5) if factory is s4d else (5,)
    carry = factory(3, 4, state_size=5).initial_carry()
    assert carry.re.shape == carry.im.shape == shape and carry.h.shape == (4,)
    assert s5(3, 4).initial_carry().re.shape == (4,)
