"""DEER on chaotic flows and driven networks: states, iterations, the flows, and the theory."""

import gonzalez2025_flows as flows
import gonzalez2025_map as nets
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _driven import driven
from _iterations import TOLERANCE, count_iterations

from gradflow import flow, unroll
from gradflow.unroll.affine import linearised_scan


def derivatives():
    """The nine flows in NumPy, from the coefficients of their monomials or from their sines."""

    def polynomial(*rows):
        return lambda s: np.array([
            sum(c * np.prod(np.power(s, powers)) for c, powers in row) for row in rows
        ])  # fmt: skip

    x, y, z, one = (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0)
    xy, xz, yz = (1, 1, 0), (1, 0, 1), (0, 1, 1)

    def thomas(s):
        return -1.85 * s + 10 * np.sin(np.roll(s, -1))

    def abc(s):
        A, B = 1.73205, 1.41421
        (sx, sy, sz), (cx, cy, cz) = np.sin(s), np.cos(s)
        return np.array([A * sz + cy, B * sx + A * cz, sy + B * cx])

    def chua(s):
        outer, inner = -0.71429, -1.142857  # the slopes beyond and within |x| = 1
        edge = np.clip(s[0], -1, 1)
        return np.array([
            15.6 * (s[1] - s[0] - outer * (s[0] - edge) - inner * edge), s[0] - s[1] + s[2],
            -28 * s[1],
        ])  # fmt: skip

    return {
        "Rossler": polynomial(
            [(-1, y), (-1, z)], [(1, x), (0.2, y)], [(0.2, one), (1, xz), (-5.7, z)]
        ),
        "Lorenz": polynomial(
            [(-10, x), (10, y)], [(28, x), (-1, xz), (-1, y)], [(1, xy), (-8 / 3, z)]
        ),
        "Thomas": thomas,
        "ABC": abc,
        "Sprott B": polynomial([(1, yz)], [(1, x), (-1, y)], [(1, one), (-1, xy)]),
        "Kawczynski-Strizhak": polynomial(
            [(0.49, y), (-0.49, (3, 0, 0)), (3 * 2.1 * 0.49, x)],
            [(-2 * 2.1, x), (-1, y), (-1, z), (-0.4, one)],
            [(0.2, x), (-0.2, z)],
        ),
        "Vallis": polynomial(
            [(102, y), (-3, x)], [(-1, y), (1, xz)], [(-1, z), (-1, xy), (1, one)]
        ),
        "Chua": chua,
        "Nose-Hoover": polynomial([(1, y)], [(-1, x), (1, yz)], [(1.5, one), (-1, (0, 2, 0))]),
    }


def test_steps_of_flows_and_observers_are_euler_steps():
    C = np.array([0.3, -1.2, 0.7])
    for name, slope in derivatives().items():
        s, x = np.random.default_rng(0).standard_normal((2, 3)) * 2
        found = flows.flow_cell(name).step({"C": C}, jnp.asarray(s), jnp.zeros(0))[0]
        np.testing.assert_allclose(found, s + 0.01 * slope(s), rtol=1e-12, err_msg=name)
        z = s.copy()
        observed = list(flows.FLOWS[name].observed)
        z[observed] = x[observed]
        wanted = z + 0.01 * (slope(z) + np.outer(C, C) @ (x - z))
        found = flows.observer_cell(name).step({"C": C}, jnp.asarray(s), jnp.asarray(x))[0]
        np.testing.assert_allclose(found, wanted, rtol=1e-12, err_msg=name)


def test_exponents_of_lorenz_sum_to_the_divergence_for_a_small_step():
    dt = 2e-5
    cell, x = flows.flow_cell("Lorenz", dt), jnp.zeros((300, 0))
    found = flow.lyapunov_exponents(cell, {"C": jnp.zeros(3)}, x).exponents.sum() / dt
    np.testing.assert_allclose(found, -(10 + 1 + 8 / 3), atol=1e-3)


def test_moves_solve_the_linearised_equations():
    step = lambda s, x: jnp.tanh(s[::-1] * s + x)  # noqa: E731
    old, x, r = jax.random.normal(jax.random.key(0), (3, 9, 3))
    J, move, wanted = jax.vmap(jax.jacfwd(step))(old, x), np.zeros(3), []
    for t in range(9):
        move = np.asarray(J[t]) @ move + np.asarray(r[t])
        wanted.append(move)
    for moves in (linearised_scan, flows.moves_in_parallel):
        np.testing.assert_allclose(moves(step, old, x, r), wanted, rtol=1e-11)


def newton(step, s_0, states, J):
    """Newton's method in NumPy on the whole block matrix; the merit before each iteration."""
    T, n = states.shape
    merits = []
    for _ in range(T + 1):
        before = np.vstack([s_0, states[:-1]])
        r = np.stack([step(s) for s in before]) - states
        merits.append(0.5 * np.cumsum((r**2).sum(1)) / np.arange(1, T + 1))
        matrix = np.eye(T * n)
        for t in range(1, T):
            matrix[t * n : (t + 1) * n, (t - 1) * n : t * n] = -J(before[t])
        states = states + np.linalg.solve(matrix, r.ravel()).reshape(T, n)
    return np.array(merits), states


def test_count_and_states_equal_newtons_method_on_the_block_matrix():
    T, n = 12, 4
    W = 1.5 * np.random.default_rng(1).standard_normal((n, n))
    s_0, guess = np.full(n, 0.3), np.random.default_rng(2).uniform(-1, 1, (T, n))
    merits, states = newton(
        lambda s: W @ np.tanh(s), s_0, guess, lambda s: W * (1 - np.tanh(s) ** 2)
    )
    lengths = np.array([3, 7, 12])
    cell, params, x = driven(n), {"W_h": jnp.asarray(W)}, jnp.zeros((T, n))
    ends = jnp.asarray(s_0), jnp.asarray(guess)
    path = unroll(cell, params, x, carry=ends[0]).outputs
    np.testing.assert_allclose(states, path, rtol=1e-8)
    for moves in (linearised_scan, flows.moves_in_parallel):
        counts, error = count_iterations(cell, moves, params, x, ends, jnp.asarray(lengths))
        first = [int(np.argmax(merits[:, T - 1] < TOLERANCE)) + 1 for T in lengths]
        np.testing.assert_array_equal(counts, np.minimum(first, lengths))
        assert error < 1e-4
    assert first[-1] > 3


def test_observer_that_starts_on_the_flow_follows_it():
    for name in ("Rossler", "Chua"):
        s_0 = jnp.array(flows.FLOWS[name].start)
        x = unroll(flows.flow_cell(name), {"C": jnp.zeros(3)}, jnp.zeros((20, 0)), carry=s_0)
        found = unroll(
            flows.observer_cell(name), {"C": jnp.ones(3)}, x.carries[:-1], carry=s_0
        ).carries
        np.testing.assert_allclose(found, x.carries, rtol=1e-12)


def test_theory_is_the_geometric_series():
    for value, T in ((-0.7, 50), (0.01, 300)):
        wanted = 2 * np.log(np.expm1(value * T) / np.expm1(value))
        np.testing.assert_allclose(nets.theory(np.array([value]), T), [wanted], rtol=1e-12)
    np.testing.assert_allclose(nets.theory(np.zeros(1), 40), [2 * np.log(40)])


def test_iterations_of_the_quick_runs(quick_run):
    few = quick_run("gonzalez2025_flows")
    assert (few.observer_iterations <= 14).all() and (few.iterations.values > 20).all()
    counts = quick_run("gonzalez2025_map").iterations.transpose("gain", "seed", "length").values
    assert (np.diff(counts[-1]) > 0).all() and counts.max() <= 60


def test_unknown_flow_is_refused():
    with pytest.raises(ValueError, match="flow 'Lorentz'"):
        flows.run(flows.Config(flows=("Lorentz",)))
