"""Frames that go through matrices with rows and columns of any size."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from products import as_inputs, given, random_rotations

from gradflow import flow
from gradflow.numerics.graded_frame import graded_frame, rank_revealing

SIZE = 12


def graded(seed, rows, columns):
    """A Gaussian matrix with rows and columns scaled over so many orders of magnitude."""
    rng = np.random.default_rng(seed)
    left, right = (10.0 ** rng.uniform(-n, 0, SIZE) for n in (rows, columns))
    return left[:, None] * rng.normal(size=(SIZE, SIZE)) * right


@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (40, 0), (0, 40), (60, 60)])
def test_growths_multiply_to_the_determinant_and_the_first_is_a_norm(rows, columns):
    A = graded(0, rows, columns)
    Q = random_rotations(1, SIZE)[0]
    frame, growth = jax.jit(graded_frame)(jnp.asarray(Q), jnp.asarray(A))
    with mpmath.workdps(300):
        exact = mpmath.log(abs(mpmath.det(mpmath.matrix(A.tolist()))))
    np.testing.assert_allclose(growth.sum(), float(exact), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(growth[0], np.log(np.linalg.norm(Q[0] @ A)), atol=1e-12)
    np.testing.assert_allclose(frame @ frame.T, np.eye(SIZE), atol=1e-13)


def test_each_growth_is_that_of_elimination_in_many_digits():
    A, Q = graded(1, 30, 30), random_rotations(1, SIZE, seed=3)[0][:5]
    _, growth = graded_frame(jnp.asarray(Q), jnp.asarray(A))
    with mpmath.workdps(300):
        product = mpmath.matrix(Q.tolist()) * mpmath.matrix(A.tolist())
        lower = mpmath.cholesky(product * product.T)
        exact = [float(mpmath.log(lower[i, i])) for i in range(len(Q))]
    np.testing.assert_allclose(growth, exact, rtol=1e-10, atol=1e-10)


def test_a_matrix_of_low_rank_cuts_the_rows_that_it_lacks():
    rng = np.random.default_rng(2)
    A = rng.normal(size=(SIZE, 7)) @ rng.normal(size=(7, SIZE))
    left, pivots, right = rank_revealing(jnp.asarray(A))
    assert (np.asarray(pivots) != 0).sum() == 7
    np.testing.assert_allclose((left * pivots) @ right, A, atol=1e-13)
    frame, growth = graded_frame(jnp.eye(SIZE), jnp.asarray(A))
    np.testing.assert_array_equal(np.isneginf(growth), np.arange(SIZE) >= 7)
    np.testing.assert_array_equal(np.any(frame != 0, axis=1), np.arange(SIZE) < 7)


def test_a_row_that_is_cut_stays_cut():
    A, Q = graded(0, 20, 20), np.eye(SIZE)
    Q[4] = 0
    frame, growth = graded_frame(jnp.asarray(Q), jnp.asarray(A))
    np.testing.assert_array_equal(np.isneginf(growth), np.arange(SIZE) == 4)
    assert not np.any(frame[4])


# Where a frame that one step has turned along the axes comes to a step that scales these by 60
# orders of magnitude, the growths share 16 digits between them: rows are not exchanged. How much of
# them is lost depends on how LAPACK rounds on a machine: 1e-6 and 4e-4 were seen on two.
GRADINGS = {
    "rows": (lambda seed: (40, 0), 1e-12),
    "columns": (lambda seed: (0, 40), 1e-12),
    "in turn": (lambda seed: (30 * (seed % 2), 30 * (seed % 3)), 2e-3),
}


@pytest.mark.parametrize("time_reversed", [False, True])
@pytest.mark.parametrize("name", GRADINGS)
def test_exponents_through_steps_of_any_condition_sum_to_the_log_determinants(name, time_reversed):
    grading, rtol = GRADINGS[name]
    steps = [graded(seed, *grading(seed)) for seed in range(12)]
    found = flow.lyapunov_exponents(given(SIZE), {}, as_inputs(steps), time_reversed=time_reversed)
    with mpmath.workdps(100):
        dets = [float(mpmath.log(abs(mpmath.det(mpmath.matrix(A.tolist()))))) for A in steps]
    assert np.isfinite(found.exponents).all()
    np.testing.assert_allclose(found.exponents.sum(), np.mean(dets), rtol=rtol)
