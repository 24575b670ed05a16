"""Newton's method over the trajectory against the scan, and its report of convergence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradflow import unroll
from gradflow.cell import Cell
from gradflow.cells import gru, lstm, rnn
from gradflow.unroll.newton import solve_in_parallel

NUM_STEPS = 12


def net(factory, **options):
    cell = factory(2, 4, **options)
    inputs = jax.random.normal(jax.random.key(1), (NUM_STEPS, 2))
    return cell, cell.init(jax.random.key(0)), inputs


def solve(cell, params, inputs, *, tolerance=1e-12, max_iterations=NUM_STEPS, **options):
    limits = {"tolerance": tolerance, "max_iterations": max_iterations}
    return solve_in_parallel(cell, params, inputs, **limits, **options)


def assert_trees_close(found, expected, **closeness):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, **closeness)


@pytest.mark.parametrize("factory", [rnn, gru, lstm])
def test_states_equal_the_scan(factory):
    cell, params, inputs = net(factory)
    carry = jax.tree.map(lambda leaf: leaf + 0.3, cell.initial_carry())
    found = solve(cell, params, inputs, carry=carry)
    expected = unroll(cell, params, inputs, carry=carry).carries
    assert jax.tree.structure(found.carries) == jax.tree.structure(expected)
    assert_trees_close(found.carries, expected, atol=1e-13)
    assert found.converged and found.error <= 1e-12 and 1 < found.iterations < NUM_STEPS


def test_linear_cell_converges_in_one_iteration_from_any_guess():
    cell, params, inputs = net(rnn, activation="identity")
    found = solve(cell, params, inputs, carry=jnp.ones(4), max_iterations=1)
    assert found.iterations == 1 and found.converged
    expected = unroll(cell, params, inputs, carry=jnp.ones(4)).carries
    np.testing.assert_allclose(found.carries, expected, atol=1e-13)


def test_derivatives_equal_the_scan():
    cell, params, inputs = net(gru)

    def of_scan(params, inputs, carry):
        return jnp.sum(jnp.sin(unroll(cell, params, inputs, carry=carry).carries))

    def of_solution(params, inputs, carry):
        return jnp.sum(jnp.sin(solve(cell, params, inputs, carry=carry).carries))

    arguments = params, inputs, jnp.full(4, 0.2)
    found, expected = (jax.grad(f, (0, 1, 2))(*arguments) for f in (of_solution, of_scan))
    assert_trees_close(found, expected, atol=1e-11)


def logistic_map():
    """x ← 4 x (1 - x) from 0.3, with Lyapunov exponent log 2."""
    step = lambda params, s, x: (4 * s * (1 - s), s)  # noqa: E731
    cell = Cell(lambda key: {}, step, lambda: jnp.full(1, 0.3))
    return cell, {}, jnp.zeros((40, 1))


def test_chaotic_run_with_a_tiny_residual_is_not_reported_as_converged():
    cell, params, inputs = logistic_map()
    found = solve(cell, params, inputs, tolerance=1e-6, max_iterations=1000)
    residual = found.carries[1:] - 4 * found.carries[:-1] * (1 - found.carries[:-1])
    assert np.abs(residual).max() < 1e-6  # but the error is about 2^40 eps
    assert not found.converged and found.error > 1e-6 and found.iterations == 1000


def test_overflowing_iterates_are_reset_and_not_reported_as_converged():
    cell, params, inputs = net(rnn, activation="identity")
    inputs = jnp.ones((900, 2))
    found = solve(cell, params | {"W_h": 3 * params["W_h"]}, inputs, max_iterations=3)
    assert np.isfinite(found.carries).all()
    assert found.error == np.inf and not found.converged and found.iterations == 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_iterations": 0}, "Expected max_iterations of at least 1, got 0"),
        ({"tolerance": 1e-17}, "at least 2e-15, ten times the rounding error of float64, got"),
        ({"tolerance": float("nan")}, "got nan. Increase it"),
        ({"inputs": jnp.zeros((0, 2))}, r"T of at least 1, got shape \(0, 2\)"),
    ],
)
def test_bad_arguments_raise(given, message):
    cell, params, inputs = net(rnn)
    with pytest.raises(ValueError, match=message):
        solve(cell, params, **{"inputs": inputs, **given})
