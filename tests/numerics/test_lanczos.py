"""The largest singular values of many matrices at once, against NumPy's decomposition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradflow.numerics import lanczos
from gradflow.numerics.certificate import DECOMPOSED
from gradflow.numerics.lanczos import Matrices, generic_vector, log_spectral_norms

ROWS, COLUMNS = 24, 30


def stack():
    """Matrices whose search is hard in a way each."""
    rng = np.random.default_rng(0)
    matrices = rng.normal(size=(12, ROWS, COLUMNS))
    q, r = np.linalg.qr(matrices[0] @ matrices[0].T)[0], np.linalg.qr(matrices[1].T)[0]
    matrices[2] = q @ np.diag(1 - 1e-3 * np.arange(ROWS)) @ r.T  # values close together
    matrices[3] = np.eye(ROWS, COLUMNS)
    matrices[4] *= 1e-200  # whose squares underflow
    matrices[5] = 0
    matrices[6] = np.outer(q[0], r[:, 0])
    for index, gap in ((7, 1e-2), (8, 1e-5), (9, 1e-7)):  # units with no path between them
        sizes = rng.uniform(0, 0.9, ROWS)
        sizes[[5, 17]] = 1, 1 - gap
        matrices[index] = np.eye(ROWS, COLUMNS) * sizes[:, None]
    matrices[10] = np.nan
    return matrices


@jax.jit
def measure(matrices):
    trace = jnp.sum(matrices**2, axis=(1, 2))
    norms, _ = log_spectral_norms(
        Matrices(
            push=lambda v: jnp.einsum("tij,tj->ti", matrices, v),
            pull=lambda u: jnp.einsum("tij,ti->tj", matrices, u),
            form=lambda index: matrices[index],
            trace=trace,
            rounding=1e-14 * trace,
        ),
        jnp.broadcast_to(generic_vector(matrices.shape[1], matrices.dtype), matrices.shape[:2]),
    )
    return norms


def by_numpy(matrices):
    kept = np.delete(matrices, 10, axis=0)
    with np.errstate(divide="ignore"):
        return np.insert(np.log(np.linalg.norm(kept, ord=2, axis=(1, 2))), 10, np.nan)


def test_equals_a_decomposition():
    matrices = stack()
    found, expected = measure(jnp.asarray(matrices)), by_numpy(matrices)
    np.testing.assert_allclose(found.lower, expected, atol=5.1e-7)
    kept = np.isfinite(expected)
    assert np.all(np.asarray(found.lower <= expected + 1e-12)[kept])
    assert np.all(np.asarray(found.upper >= expected - 1e-12)[kept])


def test_what_does_not_converge_is_decomposed(monkeypatch):
    matrices = stack()
    monkeypatch.setattr(lanczos, "MOST_STEPS", 4)
    found = jax.jit(lambda matrices: measure.__wrapped__(matrices))(jnp.asarray(matrices))
    np.testing.assert_allclose(found.lower, by_numpy(matrices), atol=5.1e-7)
    assert np.any(found.stage == DECOMPOSED)


def test_float32():
    matrices = stack()
    matrices[4] *= 1e180
    found = measure(jnp.asarray(matrices, jnp.float32))
    assert found.lower.dtype == jnp.float32
    np.testing.assert_allclose(found.lower, by_numpy(matrices), atol=6e-5)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_smallest_matrices(size):
    matrices = np.random.default_rng(1).normal(size=(11, size, size))
    matrices[10] = np.nan
    found = measure(jnp.asarray(matrices)).lower
    np.testing.assert_allclose(found, by_numpy(matrices), atol=5.1e-7)
